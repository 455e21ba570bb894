"""The Fine-tune tab's part below a watched run: what its curve says, and what can be done with its adapter.

May import `page`, `hub`, `data` and Gradio. The run is the one that is watched above; chatting and comparing happen on
other tabs, which the app opens with the run and its base.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from finetune.experiment_verdict import HEALTHY, Curve, verdict
from finetune.merge import merge
from hub import details, live, overview
from hub.adapter_card import adapter_facts
from hub.models import ADAPTER
from hub.runs import LIVE, Run, status_of
from page import finetune as draw
from page.html import Markup, note
from page.tab import MODEL, QUICK, answer, html

SECONDS = 3.0  # between two looks at the run
PROGRESS = gr.Progress()  # as a handler's default: what it says is shown in the page


@dataclass(frozen=True)
class After:
    """What the app wires: each button leads to another tab, with the watched run and its base."""

    to_generate: gr.Button
    to_compare: gr.Button


def build(access: Access, watched: gr.Dropdown) -> After:
    """Lay the part out inside the caller's tab."""
    curve = html(elem_id="tune-verdict")
    with gr.Row(elem_classes="lab-train-buttons"):
        buttons = {name: gr.Button(words, size="sm", min_width=180, interactive=False, elem_id=f"tune-{name}")
                   for name, words in (("chat", "Chat beside its base"), ("compare", "Compare attention with its base"),
                                       ("merge", "Merge into its base"))}  # fmt: skip
    merged, elsewhere = html(elem_id="tune-merged"), html(elem_id="tune-elsewhere")
    seen, shown = gr.State(()), [curve, elsewhere, *buttons.values()]
    look = answer(partial(looked, access))
    gr.on([gr.Timer(SECONDS).tick, watched.change], look, [watched, seen], [seen, *shown], **QUICK)
    watched.change(lambda: "", None, merged, **QUICK)
    buttons["merge"].click(answer(partial(merge_run, access)), watched, merged, show_progress_on=merged, **MODEL)
    return After(buttons["chat"], buttons["compare"])


def looked(access: Access, ref: str | None, seen: tuple) -> list:
    """(what tells it from another, what the curve says, the commands, three buttons); all skipped where as `seen`."""
    if not ref:
        return [gr.skip()] * 6
    try:
        run = overview.find(access, ref)
        info, measured = run.info(), live.read(run.path)
        stamp = (run.id, status_of(info), measured.version, (run.path / ADAPTER).is_file())
    except (ValueError, OSError):  # the part above says so
        stamp, run = (ref,), None
    if stamp == seen:
        return [gr.skip()] * 6
    usable = run is not None and stamp[3] and info["kind"] == "finetune"
    buttons = [gr.Button(interactive=usable)] * 2 + [gr.Button(interactive=usable and not access.read_only)]
    if run is None or info["kind"] != "finetune":
        return [stamp, Markup(), Markup(), *buttons]
    return [stamp, said_of(measured.columns, stamp[1] in LIVE), commands(run) if usable else Markup(), *buttons]


def said_of(columns: Mapping[str, list], lives: bool) -> Markup:
    """What a run's curve is called, and why; nothing while it is too short.

    Args:
        columns: the run's measurements.
    """
    try:
        name, reason = verdict(Curve.of(columns))
    except ValueError:
        return Markup()
    so_far = "The curve so far is" if lives else "The curve is"
    return note(f"{so_far} {name}: {reason}.", "good" if name == HEALTHY else "warning")


def commands(run: Run) -> Markup:
    """What the adapter is, and what to type to merge it, to open it and to publish it."""
    typed = {
        "Make one model of the two, in a terminal:": f"python -m finetune.merge {run.id}{run.workspace_flag()}",
        "Open it in Python:": details.loading(run),
        "Publish the adapter with its card:": f"python -m hub.push {run.id} OWNER/NAME{run.workspace_flag()}",
    }
    return draw.elsewhere(adapter_facts(run, run.info()), typed)


def merge_run(access: Access, ref: str | None, progress: gr.Progress = PROGRESS) -> Markup:
    """Merge the watched run's adapter into its base, as a new run; what that changed."""
    access.check_write()
    run = overview.find(access, ref or "")
    whole = merge(run.id, access.workspace, say=lambda words: progress(None, desc=words))
    return draw.merged(whole.id, whole.info()["result"])
