"""What a view of causes shows, and the button that saves it with its numbers and its command.

May import `page`, `data` and Gradio; of ours here `interpret.figures` and `cause_figures`.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import gradio as gr
import numpy as np
from matplotlib.figure import Figure

from data.access import Access
from data.workspace import Workspace
from interpret.figures import default_path, save
from page.html import Markup, note
from page.tab import QUICK, answer, html


@dataclass(frozen=True)
class Shown:
    """A result `found` by the command of `view`, with what draws it as a figure and what its numbers are."""

    view: str
    ref: str
    found: object
    draw: Callable[[object], Figure]
    numbers: Callable[[object], dict[str, np.ndarray]]
    command: str


def build(access: Access, shown: gr.State, name: str) -> gr.HTML:
    """A button that saves what `shown` holds, and the place that tells where; a new view empties that place."""
    with gr.Row():
        button = gr.Button("Save the figure", elem_id=f"{name}-save", min_width=200, scale=0)
    kept = html(elem_id=f"{name}-kept")
    button.click(answer(partial(keep, access)), shown, kept, **QUICK)
    return kept


def keep(access: Access, shown: Shown | None) -> Markup:
    """Write the figure and its numbers into the workspace. Raises ValueError where there is nothing, or no right to."""
    access.check_write()
    if shown is None:
        raise ValueError("there is no figure yet: show one first")
    out = default_path(access.workspace, shown.view, shown.ref)
    saved = save(shown.draw(shown.found), shown.numbers(shown.found), shown.command, out)
    return note(f"Saved as {saved.figure}, the numbers beside it as {saved.numbers.name}.", "good")


def command(view: str, ref: str, flags: dict[str, str | bool | Sequence[str]], workspace: Workspace) -> str:
    """What to type in a terminal for the same; a flag that is True stands alone, one without a value is left out."""
    words = ["python", "-m", f"interpret.{view}", ref]
    for flag, value in flags.items():
        if value is True:
            words.append(f"--{flag}")
        elif isinstance(value, str):  # behind a sign of equality a value may begin with a dash
            words += [f"--{flag}={value}"] if value[:1] == "-" else [f"--{flag}", value] if value else []
        elif value:
            words += [f"--{flag}", *value]
    words += [] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]
    return shlex.join(words)
