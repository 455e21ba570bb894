"""The Models tab, the start page: every run as a line, one opened with all there is to know, several side by side.

May import `page`, `data` and Gradio. This tab alone is made of two files beside it, `tab_list` and `tab_run`; here they
are put together, with the endpoints for programs. Nothing is kept between two looks at the run folders but what the
browser shows.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import gradio as gr

from data.access import Access
from hub import live, overview, registry, tab_list, tab_run
from page.tab import QUICK, answer, html


@dataclass(frozen=True)
class ModelsTab:
    """What the app wires: filling `run_id` opens a run (an id, a name or `latest`), emptying it closes it."""

    run_id: gr.Textbox
    to_generate: gr.Button
    to_inspect: gr.Button
    to_train: gr.Button


def build(access: Access) -> ModelsTab:
    """Lay the tab out inside the caller's `gr.Tab`."""
    run_id = gr.Textbox(visible="hidden", elem_id="models-run", label="opened run")
    tab_list.build(access)
    with gr.Column(visible=False, elem_id="models-detail", elem_classes="lab-models-panel") as panel:
        head = html()
        with gr.Row():
            to_generate = tab_run.button("Open in Generate", "models-to-generate", variant="primary")
            to_inspect = tab_run.button("Look inside", "models-to-inspect")
            to_train = tab_run.button("Fork in Train", "models-to-train")
            close = tab_run.button("Close", "models-close")
        tab_run.build(access, run_id, panel, head)
    close.click(lambda: "", None, run_id, **QUICK)
    build_api(access)
    return ModelsTab(run_id, to_generate, to_inspect, to_train)


def build_api(access: Access) -> None:
    """The endpoints of this tab."""

    def list_runs(
        search: str = "", status: str = "", kind: str = "", corpus: str = "", sort: str = "", limit: int = 1000
    ) -> list[dict]:
        """The runs of the workspace, newest first where no other order is asked for.

        Args:
            search: words that all occur in a run's name, id, note, kind, status, corpus, examples or base.
            status: only runs of this one, such as `running` or `completed`.
            kind: only `pretrain`, `finetune`, `experiment` or `import`.
            corpus: only runs on the corpus of this name.
            sort: `newest first`, `oldest first`, `validation loss`, `excess over the floor`, `parameters` or `name`.
            limit: how many at most.

        Returns:
            for each its id, name, kind, status, corpus, parameters, step, steps, val_loss, excess, created_at, note,
            what is wrong with it, and of a fine-tuned one its examples, its base and the parameters trained.
        """
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit is {limit!r}: ask for 1 run or more")
        rows = overview.select(overview.rows(access.workspace), search, status, kind, corpus, sort)
        return [asdict(row) for row in rows[:limit]]

    def show_run(run: str) -> dict:
        """What one run is: its run.json with the status that holds now, and its checkpoints.

        Args:
            run: an id, the beginning of one, a name (its newest run) or `latest`.
        """
        shown = registry.show_run(access.workspace, overview.find(access, run))
        del shown["path"]  # Gradio's clients take whatever has a `path` for a file to download
        return shown

    def metrics(run: str, columns: list[str] | None = None, points: int = 600) -> dict:
        """What a run measured, each column thinned by itself so that no spike is lost.

        Args:
            run: an id, the beginning of one, a name (its newest run) or `latest`.
            columns: such as `train_loss`, `val_loss`, `grad_norm`, `learning_rate`, `tokens_sec`; none means all.
            points: at most so many of each column, 4 or more.

        Returns:
            for each column its `step`s and `value`s, those that are finite numbers.
        """
        return curves(live.read(overview.find(access, run).path), columns, points)

    for endpoint in (list_runs, show_run, metrics):
        gr.api(answer(endpoint), api_name=endpoint.__name__, concurrency_limit=None)


def curves(one: live.Live, columns: Sequence[str] | None, points: int) -> dict:
    """Columns as {name: {"step": [...], "value": [...]}}. Raises ValueError for a column that there is none of."""
    if not isinstance(points, int) or points < 4:
        raise ValueError(
            f"points is {points!r}: at least 4 are needed for the first, the last, the lowest and the highest"
        )
    known = [name for name in one.columns if name != "step"]
    if missing := [name for name in columns or [] if name not in known]:
        raise ValueError(f"the run has no column {missing[0]!r}: it has {', '.join(known) or 'none yet'}")
    thinned = {name: live.thin(*one.measured(name), points) for name in columns or known}
    return {name: {"step": x.astype(int).tolist(), "value": y.tolist()} for name, (x, y) in thinned.items()}
