"""The statistics of the corpus that is open in the Data tab.

May import `page`, Gradio and the other modules of `data`; `page.statistics` draws. What was measured before is shown at
once; a click measures the rest, which takes some seconds for each ten million characters.
"""

from functools import partial

import gradio as gr

from data.access import Access
from data.corpora import snapshot, snapshot_names
from data.statistics import kept, statistics
from page.html import Markup
from page.statistics import view
from page.tab import QUICK, WORK, answer, html

PROGRESS = gr.Progress(track_tqdm=True)
TITLE = '<h3 class="lab-data-h">Statistics</h3>'


def build(access: Access, corpus: gr.Textbox) -> None:
    """Lay them out for the corpus named in `corpus`."""
    shown = html(elem_id="data-statistics")
    measure = gr.Button("Measure its statistics", size="sm", elem_id="data-measure", visible=False)
    corpus.change(answer(partial(look, access)), corpus, [shown, measure], **QUICK)
    measure.click(answer(partial(work_out, access)), corpus, [shown, measure], show_progress_on=shown, **WORK)


def look(access: Access, name: str) -> tuple:
    """(what is known, the button that measures the rest)."""
    if name not in snapshot_names(access.workspace):
        return "", gr.update(visible=False)
    found = kept(snapshot(access.reference(name), access.workspace))
    if found is None:
        return "", gr.update(visible=not access.read_only)
    return draw(found), gr.update(visible=False)


def work_out(access: Access, name: str, progress: gr.Progress = PROGRESS) -> tuple:
    """(the statistics, measured now, no button)."""
    access.check_write()
    found = statistics(snapshot(access.reference(name), access.workspace), access.workspace)
    return draw(found), gr.update(visible=False)


def draw(found: dict) -> Markup:
    return Markup(f"{TITLE}{view(found)}")
