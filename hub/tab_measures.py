"""A part of an opened run on the Models tab: its diagnostics, folded away until somebody wants to see them.

May import `page`, `data` and Gradio. Closed, it costs nothing; open, it is drawn again only when there is more to show.
"""

from functools import partial

import gradio as gr

from data.access import Access
from data.console import one_line
from hub import live, overview
from hub.measured import recorded
from page.html import note
from page.measures import diagnostics
from page.runs import AXES
from page.tab import folded

POINTS = 80  # of a line: these charts are small


def build(access: Access, run_id: gr.Textbox, axis: gr.Radio) -> None:
    """Lay the section out below the curves."""
    folded("Diagnostics", "models-diagnostics", partial(measured, access), [run_id, axis], [run_id.change, axis.change])


def measured(access: Access, ref: str, axis: str, seen: tuple | None) -> tuple:
    """(the charts, what tells them from others), both skipped where they are `seen`; that is None while closed."""
    if seen is None or not ref:
        return gr.skip(), gr.skip()
    try:
        run = overview.find(access, ref)
        one = live.read(run.path)
        stamp = run.id, one.version, axis
        if stamp == seen:
            return gr.skip(), gr.skip()
        return diagnostics(recorded(one, axis, POINTS), AXES[axis]), stamp
    except ValueError as error:  # its folder is gone, or a line of its metrics is spoilt
        return note(one_line(error), "error"), ()
