"""The list of runs on the Models tab, and those ticked in it side by side.

May import `page`, `data` and Gradio. Handlers are plain functions of plain values; `build` binds them. What the browser
does by itself (tick boxes, keeping the focus) is models.js beside this file.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from data.access import Access
from hub import live, overview
from hub.metrics import read_samples
from hub.runs import KINDS
from page import runs as draw
from page.chart import POINTS, Series, line_chart
from page.html import STATUSES, Markup, note
from page.tab import QUICK, answer, html

PAGE = 50  # runs shown at once
SECONDS = 2.0  # between two looks at the folders
FIRST_RUN = "There are no runs yet. The Train tab makes the first in minutes, and so does `make demo` in a terminal."
NO_MATCH = "No run is like that: empty the search box, or choose other filters."
TICK = "Compare: tick two runs or more"
# once it is drawn, and the list above it has shrunk
SHOW = "() => setTimeout(() => document.getElementById('models-compare')?.scrollIntoView({behavior: 'smooth'}), 200)"


def build(access: Access) -> None:
    """Search, filters and the lines; choosing one fills the field of the opened run, ticked ones can be compared."""
    with gr.Row(elem_classes="lab-models-filters"):
        search = gr.Textbox(
            label="Search", placeholder="name, id, note, corpus, base", scale=3, min_width=200, elem_id="models-search"
        )
        status = gr.Dropdown(choices_of(STATUSES), value="", label="Status", min_width=120, elem_id="models-status")
        kind = gr.Dropdown(choices_of(KINDS), value="", label="Kind", min_width=120, elem_id="models-kind")
        corpus = gr.Dropdown(
            choices_of([]), value="", label="Corpus", min_width=120, allow_custom_value=True, elem_id="models-corpus"
        )
        orders = list(overview.SORTS)
        sort = gr.Dropdown(orders, value=orders[0], label="Order", min_width=150, elem_id="models-sort")
    script = Path(__file__).with_name("models.js").read_text(encoding="utf-8")
    listing = gr.HTML(js_on_load=script, padding=False, elem_id="models-list")
    limit, seen, ticked = gr.State(PAGE), gr.State(None), gr.State([])
    asked, look = [search, status, kind, corpus, sort, limit], answer(partial(listed, access))
    gr.on(None, look, asked, [listing, seen], trigger_mode="always_last", **QUICK)  # at first, and when one changes
    gr.Timer(SECONDS).tick(look, [*asked, seen], [listing, seen], **QUICK)
    corpus.focus(lambda: gr.Dropdown(choices=choices_of(corpora(access))), None, corpus, **QUICK)
    compare = gr.Button(TICK, interactive=False, size="sm", elem_id="models-compare-button")

    def tick(event: gr.EventData) -> tuple:
        count = len(event.runs)
        words = f"Compare {count} runs" if count > 1 else TICK
        return event.runs, gr.Button(words, interactive=count > 1)

    listing.more(lambda shown: shown + PAGE, limit, limit, **QUICK)
    listing.ticked(answer(tick), None, [ticked, compare], trigger_mode="multiple", **QUICK)
    build_comparison(access, ticked, compare)


def build_comparison(access: Access, ticked: gr.State, compare: gr.Button) -> None:
    """The panel that the button opens."""
    with gr.Column(visible=False, elem_id="models-compare", elem_classes="lab-models-panel") as panel:
        with gr.Row():
            axis = gr.Radio(draw.AXIS_CHOICES, value="step", label="Against", elem_id="models-compare-axis")
            log_y = gr.Checkbox(True, label="Logarithmic loss", min_width=120)
            close = gr.Button("Close the comparison", size="sm", scale=0, min_width=180)
        drawn = html()
    look = answer(partial(compared, access))
    shown = compare.click(look, [ticked, axis, log_y], [panel, drawn], **QUICK)
    shown.success(None, None, None, js=SHOW, api_visibility="private")
    gr.on([axis.change, log_y.change], look, [ticked, axis, log_y], [panel, drawn], **QUICK)
    close.click(lambda: gr.Column(visible=False), None, panel, **QUICK)


def listed(access: Access, search: str, status: str, kind: str, corpus: str, sort: str, limit: int, seen=None) -> tuple:
    """(the list as HTML, what tells it from another), both skipped where that is `seen` already."""
    every = overview.rows(access.workspace)
    chosen = overview.select(every, search, status, kind, corpus, sort)
    rows = chosen[:limit]
    told = hash((len(every), len(chosen), *((row, draw.ago(row.created_at) if row.created_at else "") for row in rows)))
    if told == seen:
        return gr.skip(), gr.skip()
    if not rows:
        return note(NO_MATCH if every else FIRST_RUN), told
    curves = {row.id: live.curve(access.workspace.root / "runs" / row.id) for row in rows}
    return draw.run_list(rows, curves, len(chosen) - len(rows)), told


def choices_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """A filter's choices, the first of which lets all pass."""
    return [("all", ""), *((name, name) for name in names)]


def corpora(access: Access) -> list[str]:
    return sorted({row.corpus for row in overview.rows(access.workspace) if row.corpus})


def compared(access: Access, ids: Sequence[str], axis: str, log_y: bool) -> tuple:
    """(the panel, shown; curves over one another, results, differences and newest samples side by side)."""
    there = {row.id for row in overview.rows(access.workspace)}  # a ticked run may have been deleted
    runs = [overview.find(access, one) for one in dict.fromkeys(ids) if one in there]
    if len(runs) < 2:
        raise ValueError("tick two runs or more to compare them")
    curves = {run.id: live.read(run.path) for run in runs}
    evaluated = [Series(name, *one.measured("val_loss", axis), "dots") for name, one in curves.items()]
    trained = [
        Series(name, *live.thin(*live.smooth(*one.measured("train_loss", axis)), POINTS))
        for name, one in curves.items()
    ]
    charts = (
        line_chart(lines, draw.AXES[axis], draw.LOSS, log_y, title)
        for title, lines in (("Validation loss", evaluated), ("Training loss, smoothed", trained))
    )
    parts = overview.compare(runs)
    tables = draw.comparison(
        list(curves),
        {"What came out": parts["result"], "Recipes": parts["recipe"], "Seed, code, versions": parts["origin"]},
    )
    texts = {run.id: next((one["text"] for one in reversed(read_samples(run.path))), "nothing yet") for run in runs}
    return gr.Column(visible=True), Markup(
        f'<div class="lab-charts">{"".join(charts)}</div>{tables}{draw.side_by_side("What they wrote last", texts)}'
    )
