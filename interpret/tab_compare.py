"""The Two models view: the model above beside a second one, on the same prompt.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.compare` and its neighbours, which do the work,
`tab_compare_drawing`, and the components shared with other views. What was compared stays in the page's state: looking
closer asks for the models that it was made with, whatever is chosen above meanwhile.
"""

import shlex
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import gradio as gr

from data.access import Access
from data.workspace import Workspace
from hub.loaded import loaded, model_choices
from interpret import tab_compare_drawing as draw
from interpret import tab_removed
from interpret.compare import Comparison, Opened, compare, guesses, head_patterns, samples
from interpret.compare_figure import draw as draw_figure
from interpret.compare_figure import numbers_of
from interpret.compare_weights import Changes, weight_changes
from interpret.figures import default_path, save
from interpret.tab_picker import Picked
from page.html import Markup, note
from page.tab import MODEL, QUICK, answer, html

NEW_TOKENS, MOST_TOKENS = 40, 200
PARTS = ("losses", "token", "heads", "head", "lens", "guess", "weights", "samples")  # from the top of the view
_changes: WeakKeyDictionary[object, WeakKeyDictionary] = WeakKeyDictionary()  # they do not depend on the prompt


@dataclass(frozen=True)
class Seen:
    """What is on the page, and what it was made with."""

    refs: tuple[str, str]
    prompt: str
    found: Comparison
    count: int
    seed: int


# ── the layout ──


def build(access: Access, picked: Picked) -> gr.Dropdown:
    """Lay the view out inside the caller's `gr.Tab`; returns the second model, for the app to fill."""
    second, count, seed, show = build_question(access)
    state = gr.State(None)
    parts = {name: html(elem_id=f"compare-{name}") for name in PARTS}
    target = build_removed(access, picked, second)
    saving = gr.Button("Save the figure and its numbers", elem_id="compare-save")
    saved = html(elem_id="compare-saved")

    def of_head(seen: Seen, event: gr.EventData) -> tuple:
        return look_at_head(access, seen, int(event.row), int(event.column))

    def of_cell(seen: Seen, event: gr.EventData) -> Markup:
        return look_at_cell(access, seen, int(event.row), int(event.column))

    def of_token(seen: Seen, event: gr.EventData) -> Markup:
        return look_at_token(access, seen, int(event.column))

    asked = [picked.model, picked.prompt, second, count, seed]
    # not when the prompt is entered: it is every view's, and here a second model may not be chosen yet
    comparing = show.click(answer(partial(see, access)), asked, [state, *parts.values(), saved], **MODEL)
    comparing.success(answer(partial(texts, access)), state, parts["samples"], **MODEL)
    comparing.success(answer(partial(weights, access)), state, parts["weights"], **MODEL)
    parts["heads"].act(answer(of_head), state, [parts["head"], target], **MODEL)
    parts["lens"].act(answer(of_cell), state, parts["guess"], **MODEL)
    parts["losses"].act(answer(of_token), state, parts["token"], **MODEL)
    saving.click(answer(partial(keep_figure, access)), state, saved, **MODEL)
    return second


def build_question(access: Access) -> tuple[gr.Dropdown, gr.Slider, gr.Number, gr.Button]:
    """Which second model, and how the samples are drawn."""

    def choices() -> list[tuple[str, str]]:
        return model_choices(access.workspace)

    with gr.Row(equal_height=True):
        second = gr.Dropdown(
            choices(), value=None, label="Second model", allow_custom_value=True, scale=3, min_width=280,
            info="What the model above is compared with: a run, run@revision, a folder, or an id on the Hub",
            elem_id="compare-second",
        )  # fmt: skip
        count = gr.Slider(
            0, MOST_TOKENS, NEW_TOKENS, step=1, label="Sample tokens", info="written by both", min_width=180
        )
        seed = gr.Number(0, label="Seed", info="of both samples", precision=0, minimum=0, min_width=110)
    second.focus(answer(lambda: gr.Dropdown(choices=choices())), None, second, **QUICK)
    return second, count, seed, gr.Button("Compare", variant="primary", elem_id="compare-show")


def build_removed(access: Access, picked: Picked, second: gr.Dropdown) -> gr.Textbox:
    """What either model does without a part; the part is filled in by a click on a head."""
    with gr.Accordion("What if a part is removed", open=False, elem_id="compare-removed"):
        target = gr.Textbox(
            "", label="Part", info="such as L0H1, L0.mlp or L0; a click on a head above fills it in", max_lines=1
        )
        with gr.Tabs():
            with gr.Tab("In the model above"):
                tab_removed.build(access, picked, target)
            with gr.Tab("In the second model"):
                tab_removed.build(access, Picked(second, picked.prompt), target)
    return target


# ── what the handlers do ──


def see(access: Access, first: str | None, prompt: str, second: str | None, count: float, seed: float | None) -> list:
    """The state, then PARTS, of which weights and samples follow later, and nothing saved yet."""
    if seed is None or seed < 0:
        raise ValueError("the seed must be a whole number, 0 or more")
    if not (second or "").strip():
        raise ValueError("no second model is chosen: pick one from the list, or type a name")
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"{count:g} sample tokens are not possible: choose 0 to {MOST_TOKENS}")
    refs = access.reference(first), access.reference(second)
    found = compare(*(loaded(ref, access) for ref in refs), prompt)
    seen = Seen(refs, prompt, found, int(count), int(seed))
    waiting = note("The changes of all matrices are being measured …")
    return [
        seen, draw.losses(found, refs), "", draw.heads(found), draw.HINT_HEAD if found.heads is not None else "",
        draw.lens(found), "", waiting, "", "",
    ]  # fmt: skip


def opened(access: Access, seen: Seen | None) -> tuple[Opened, Opened]:
    """Both models of what is on the page."""
    if seen is None:
        raise ValueError("nothing has been compared yet: choose a second model and press Compare")
    first, second = (loaded(ref, access) for ref in seen.refs)
    return first, second


def changes_of(access: Access, seen: Seen) -> tuple[Changes | None, str]:
    """The change of the weights, measured once for two models; or a sentence why there is none to see."""
    (first, _), (second, _) = opened(access, seen)
    known = _changes.setdefault(first, WeakKeyDictionary())
    if second not in known:
        try:
            known[second] = weight_changes(first, second), ""
        except ValueError as error:
            known[second] = None, str(error)
    return known[second]


def weights(access: Access, seen: Seen) -> Markup:
    """The changes of all matrices."""
    return draw.changes(*changes_of(access, seen))


def texts(access: Access, seen: Seen) -> Markup:
    """Both samples, or a sentence why there are none."""
    if not seen.count:
        return Markup("")
    try:
        return draw.samples(
            samples(*opened(access, seen), seen.found.tokens, seen.count, seen.seed), seen.refs, seen.seed
        )
    except ValueError as error:
        return note(f"No samples: {error}", "warning")


def look_at_head(access: Access, seen: Seen, row: int, head: int) -> tuple[Markup, str]:
    """One head's attention in both models, and its name for the panel below."""
    layer = seen.found.layers[row]
    both = head_patterns(*opened(access, seen), seen.found.tokens, seen.prompt, layer, head)
    name = f"L{layer}H{head}"
    return draw.head(name, float(seen.found.heads[row, head]), both, seen.found.tokens.units, seen.refs), name


def look_at_cell(access: Access, seen: Seen, row: int, unit: int) -> Markup:
    """What both models would say behind a token, after some layer."""
    tokens = seen.found.tokens
    likeliest = [
        guesses(one, side, unit, row)
        for one, side in zip(opened(access, seen), (tokens.first, tokens.second), strict=True)
    ]
    where = f"Behind {tokens.units[unit]!r}, {seen.found.rows[row]}"
    return draw.guesses(f"{where}: KL {seen.found.lens[row, unit]:.4g} nats", likeliest, seen.refs)


def look_at_token(access: Access, seen: Seen, unit: int) -> Markup:
    """What both models expected where a token begins."""
    tokens = seen.found.tokens
    likeliest = [
        guesses(one, side, unit - 1)
        for one, side in zip(opened(access, seen), (tokens.first, tokens.second), strict=True)
    ]
    one, other = seen.found.losses[:, unit]
    said = f"Expected where {tokens.units[unit]!r} begins, which costs {one:.4g} and {other:.4g} nats"
    return draw.guesses(said, likeliest, seen.refs)


def keep_figure(access: Access, seen: Seen | None) -> Markup:
    """Write the figure and its numbers to the workspace, and say where."""
    access.check_write()
    opened(access, seen)
    changes, _ = changes_of(access, seen)
    written = save(
        draw_figure(seen.found, changes, seen.refs), numbers_of(seen.found, changes), command(seen, access.workspace),
        default_path(access.workspace, "compare", *seen.refs),
    )  # fmt: skip
    return draw.saved(written.figure, written.numbers, command(seen, access.workspace))


def command(seen: Seen, workspace: Workspace) -> str:
    """What to type in a terminal for the same figure."""
    # a prompt that begins with a dash would be read as a flag
    prompt = [f"--prompt={seen.prompt}"] if seen.prompt.startswith("-") else ["--prompt", seen.prompt]
    words = ["python", "-m", "interpret.compare", *seen.refs, *prompt]
    words += ["--new-tokens", str(seen.count), "--seed", str(seen.seed)]
    words += [] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]
    return shlex.join(words)
