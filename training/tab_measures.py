"""A part of the watched run on the Train tab: its diagnostics, folded away until somebody wants to see them.

May import `page`, `hub`, `data` and Gradio. Closed, it costs nothing; open, it is drawn again only when there is more
to show.
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


def build(access: Access, watched: gr.Dropdown, prefix: str) -> None:
    """Lay the section out below the curves."""
    folded("Diagnostics", f"{prefix}-diagnostics", partial(measured, access), [watched], [watched.change])


def measured(access: Access, ref: str | None, seen: tuple | None) -> tuple:
    """(the charts, what tells them from others), both skipped where they are `seen`; that is None while closed."""
    if seen is None or not ref:
        return gr.skip(), gr.skip()
    try:
        run = overview.find(access, ref)
        one = live.read(run.path)
        stamp = run.id, one.version
        if stamp == seen:
            return gr.skip(), gr.skip()
        return diagnostics(recorded(one, points=POINTS), AXES["step"]), stamp
    except ValueError as error:  # its folder is gone, or a line of its metrics is spoilt
        return note(one_line(error), "error"), ()
