"""The Train tab: a recipe as a form, and below it a run that is watched while it trains.

May import `page`, `hub`, `data` and Gradio. The halves stand beside this file, `tab_form.py` and `tab_watch.py`; here
they are put together, with what a program may ask. The page only reads run folders: what trains needs no page.
"""

from dataclasses import dataclass

import gradio as gr

from data.access import Access
from hub import overview
from hub.queue import waiting_for
from hub.runs import status_of
from page.tab import QUICK, answer
from training import draft, tab_form, tab_sweeps, tab_watch
from training.recipe import checked_parts

SHOW = "() => document.getElementById('{}')?.scrollIntoView({{behavior: 'smooth', block: 'start'}})"


@dataclass(frozen=True)
class TrainTab:
    """What the app wires: filling `corpus` or `fork_from` fills the form, filling `watched` shows that run."""

    corpus: gr.Dropdown
    fork_from: gr.Dropdown
    watched: gr.Dropdown
    start_button: gr.Button


def build(access: Access) -> TrainTab:
    """Lay the tab out inside the caller's `gr.Tab`."""
    with gr.Column(elem_id="train-form"):
        form = tab_form.build(access)
    with gr.Column(elem_id="train-watching", elem_classes="lab-train-watching"):
        watch = tab_watch.build(access)
    with gr.Accordion("Sweeps: a grid of recipes, several seeds each", open=False, elem_id="train-sweeps"):
        sweeps = tab_sweeps.build(access)
    looked_at = sweeps.run.change(lambda run: run, sweeps.run, watch.watched, **QUICK)
    looked_at.success(None, js=SHOW.format("train-watching"), api_visibility="private")
    shown = form.started.change(lambda run: run, form.started, watch.watched, **QUICK)
    shown.success(None, js=SHOW.format("train-watching"), api_visibility="private")
    forked = watch.fork.click(lambda run: run, watch.watched, form.fork_from, **QUICK)
    forked.success(None, js=SHOW.format("train-form"), api_visibility="private")
    build_api(access)
    return TrainTab(form.fields["data.corpus"], form.fork_from, watch.watched, form.start)


def build_api(access: Access) -> None:
    """What a program may ask of training."""

    def start_training(recipe: dict | None = None, name: str | None = None) -> dict:
        """Start a training in a process of its own; it waits for its turn where another run trains.

        Args:
            recipe: the parts `data`, `model` and `train` with the fields that are not to be left at their defaults,
                as in a recipe file.
            name: what to call the run; none means its corpus.

        Returns:
            `run`, the new run's id.
        """
        return {"run": draft.start_run(access, checked_parts(recipe or {}, "the recipe"), name).id}

    def control_run(run: str, verb: str) -> dict:
        """Ask a run's process for something; it acts between two steps.

        Args:
            run: an id, the beginning of one, a name (its newest run) or `latest`.
            verb: `pause`, `resume`, `stop` or `save`.

        Returns:
            `run`, `status` as it is at once, and in `says` what is going to happen.
        """
        says = tab_watch.ask(access, run, verb)
        found = overview.find(access, run)
        return {"run": found.id, "status": found.status, "says": says}

    def run_status(run: str) -> dict:
        """How a run stands: what its process and its heartbeat say.

        Args:
            run: an id, the beginning of one, a name (its newest run) or `latest`.

        Returns:
            `run`, `status`, `phase` (what it does at the moment), `progress`, `result`, `error` and `waiting_for`, a
            sentence where it is queued.
        """
        found = overview.find(access, run)
        info = found.info()
        return {
            "run": found.id,
            "status": status_of(info),
            "phase": info["progress"].get("phase"),
            "progress": info["progress"],
            "result": info["result"],
            "error": info["error"],
            "waiting_for": waiting_for(found, access.workspace),
        }

    for endpoint in (start_training, control_run, run_status):
        gr.api(answer(endpoint), api_name=endpoint.__name__, concurrency_limit=None)
