"""A part of the watched run on the Train tab: what its measurements say is wrong, and a button that mends it.

May import `page`, `hub`, `data` and Gradio. Judged from the run's files alone, and only where more was measured since.
"""

from functools import partial

import gradio as gr

from data.access import Access
from data.console import one_line
from hub import live, overview
from hub.findings import FINDINGS
from hub.runs import Run
from page import findings as draw
from page.html import note
from page.tab import QUICK, answer, html
from training import draft
from training.diagnose import changed_run, diagnose

SECONDS = 2.0  # between two looks


def build(access: Access, watched: gr.Dropdown, prefix: str) -> None:
    """Lay the section out; a change that is carried out is a new run, which is watched from then on."""
    with gr.Accordion("Diagnosis", open=True, elem_id=f"{prefix}-diagnosis"):
        panel = html(elem_id=f"{prefix}-findings")
    seen = gr.State(())
    look, asked, shown = answer(partial(looked, access)), [watched, seen], [panel, seen]
    gr.on([gr.Timer(SECONDS).tick, watched.change], look, asked, shown, **QUICK)

    def change(event: gr.EventData) -> str:
        return changed(access, event.run, event.finding)

    panel.act(answer(change), None, watched, **QUICK)


def looked(access: Access, ref: str | None, seen: tuple) -> tuple:
    """(the findings, what tells them from others), both skipped where they are `seen`."""
    if not ref:
        return gr.skip(), gr.skip()
    try:
        run = overview.find(access, ref)
        stamp = (run.id, run.info()["status"], live.read(run.path).version, _stamp(run))
        if stamp == seen:
            return gr.skip(), gr.skip()
        return draw.findings(diagnose(run), run.id, can_change=not access.read_only), stamp
    except (ValueError, OSError, KeyError, TypeError) as error:  # a run of another kind, or a spoilt line
        said = str(note(f"this run cannot be diagnosed: {one_line(error)}"))
        return (gr.skip(), gr.skip()) if seen == (said,) else (said, (said,))


def changed(access: Access, ref: str, name: str) -> str:
    """Start the run that a finding proposes, detached; its id."""
    access.check_write()
    run = overview.find(access, ref)
    for finding in diagnose(run):
        if finding.name == name:
            parts, fork = changed_run(run, finding)
            begun = draft.start_run(access, parts, None if fork else run.name, fork)
            gr.Info(f"{begun.id} was started with the change")
            return begun.id
    raise ValueError(f"run {run.id} no longer shows this ({name}): look again")


def _stamp(run: Run) -> int | None:
    try:
        return (run.path / FINDINGS).stat().st_mtime_ns
    except OSError:
        return None
