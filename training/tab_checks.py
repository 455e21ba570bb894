"""The Train tab's checks: what is known of the drafted recipe at once, the rest by a button, and whether it may start.

May import `page`, `hub`, `data` and Gradio. The slow checks run in a process of their own (`training.draft`), so that
nothing of torch in the server is changed by them; what came out is kept for the recipe that it was found for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from data.access import Access
from page import training as draw
from page.html import Markup
from page.tab import QUICK, WORK, answer, html
from training import draft

WARN = "warn"  # the value of train.checks that lets a red run begin


@dataclass(frozen=True)
class Panel:
    """`last` is what was checked last, `anyway` whether red may start."""

    last: gr.State
    anyway: gr.Checkbox
    press: gr.Button
    drawn: gr.HTML


def build() -> Panel:
    """Lay the panel out below Start."""
    drawn = html(elem_id="train-checks")
    with gr.Row():
        press = gr.Button("Check", size="sm", min_width=120, elem_id="train-check")
        anyway = gr.Checkbox(False, label="Start although a check is red", elem_id="train-anyway", container=False)
    return Panel(gr.State({}), anyway, press, drawn)


def wire(access: Access, panel: Panel, drafted: Callable[..., dict], asked: list, begin: gr.Button) -> None:
    """Draw the panel at first, when a field changes and after a check.

    Args:
        drafted: (fork, field values) -> the recipe's parts.
        asked: the components of the fork and of all fields.
    """

    def show(last: dict, anyway: bool, fork: str, *values: object) -> tuple:
        return shown(access, last, anyway, fork, lambda: drafted(fork, values))

    def press(fork: str, *values: object) -> dict:
        return draft.check_run(access, drafted(fork, values), fork)

    look, outputs = answer(show), [panel.drawn, begin]
    inputs = [panel.last, panel.anyway, *asked]
    gr.on(None, look, inputs, outputs, trigger_mode="always_last", **QUICK)
    done = panel.press.click(answer(press), asked, panel.last, **{**WORK, "show_progress": "full"})
    done.success(look, inputs, outputs, **QUICK)


def shown(access: Access, last: dict, anyway: bool, fork: str, parts: Callable[[], dict]) -> tuple[Markup, gr.Button]:
    """(the checks of the drafted recipe as far as they are known, Start as they allow it)."""
    try:
        checks, pending = draft.known_checks(access, parts(), fork, last)
    except (ValueError, OSError):  # what is wrong with the draft is told beside its fields
        return Markup(), gr.Button(interactive=True)
    return draw.checks(checks, pending), gr.Button(interactive=anyway or not draft.is_red(checks))


def permitted(access: Access, last: dict, anyway: bool, fork: str, parts: dict) -> dict:
    """The parts to start with. Raises ValueError where a check is red and nobody insists."""
    if anyway:
        return {**parts, "train": {**(parts.get("train") or {}), "checks": WARN}}
    checks, _ = draft.known_checks(access, parts, fork, last)
    if draft.is_red(checks):
        raise ValueError("a check is red: mend what it says, or tick the box that starts all the same")
    return parts
