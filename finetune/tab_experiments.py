"""The Fine-tune tab's last part: the four experiments, what they found, and a new one.

May import `page`, `hub`, `data` and Gradio. An experiment is a process of its own; all that is shown is read from its
folder, and every base and source that is named goes through `Access` before anything is opened.
"""

from collections.abc import Callable
from functools import partial

import gradio as gr

from data.access import Access
from finetune import draft
from finetune.experiment import NAMES, ROOM, experiment_of, start
from finetune.experiment_plan import SEEDS
from finetune.experiment_results import RESULTS, results_of
from hub.overview import record
from hub.runs import LIVE, Run, status_of
from page import finetune as draw
from page import sweeps
from page.html import Markup, note
from page.tab import QUICK, WORK, answer, html
from training.control import request
from training.jobs import all_jobs, open_job

TICK = 3.0  # seconds between two looks


def build(access: Access) -> None:
    """Lay the part out inside the caller's tab: closed at first, when it costs nothing."""
    with gr.Accordion("Experiments: what rate, rank and epochs do", open=False, elem_id="tune-experiments") as fold:
        chosen = gr.Textbox(visible="hidden", label="experiment")
        seen, lined = gr.State({}), gr.State(None)
        listing, shown = html(elem_id="tune-experiments-list"), html(elem_id="tune-experiment")
        with gr.Row(elem_classes="lab-train-buttons"):
            buttons = [
                gr.Button(
                    words, size="sm", min_width=100, interactive=False, elem_id=f"tune-experiment-{words.lower()}"
                )
                for words in ("Stop", "Resume")
            ]
        fields, begin, said = build_new(access)
    rows, look = answer(partial(listed, access)), answer(partial(looked, access))
    parts, timer = [seen, shown, *buttons], gr.Timer(TICK, active=False)
    unfolded = fold.expand(lambda: gr.Timer(active=True), None, timer, **QUICK)
    fold.collapse(lambda: gr.Timer(active=False), None, timer, **QUICK)
    unfolded.then(rows, lined, [listing, lined], **QUICK)
    timer.tick(rows, lined, [listing, lined], **QUICK)
    gr.on([timer.tick, chosen.change], look, [chosen, seen], parts, **QUICK)
    listing.act(answer(opened), None, chosen, **QUICK)
    begun = begin.click(answer(partial(started, access)), fields, [chosen, said], **WORK)
    told = [button.click(answer(partial(asked_to, access, verb)), chosen, None, **QUICK)
            for button, verb in zip(buttons, ("stop", "resume"), strict=True)]  # fmt: skip
    for done in (begun, *told):
        done.success(rows, lined, [listing, lined], **QUICK).then(look, [chosen, seen], parts, **QUICK)


def build_new(access: Access) -> tuple[list[gr.components.Component], gr.Button, gr.HTML]:
    """(the fields of a new experiment, what starts it, the place for what is said about it)."""

    def listed(choices: Callable, empty: str) -> list[tuple[str, str]]:
        return [(empty, ""), *((one if isinstance(one, tuple) else (one, one)) for one in choices(access.workspace))]

    small, usual = "the lab's own small Qwen3", "stories, the default"
    with gr.Accordion("A new experiment", open=False, elem_id="tune-experiment-new"):
        with gr.Row():
            name = gr.Dropdown(
                [(experiment_of(one).title, one) for one in NAMES], value=NAMES[0], label="Experiment",
                info="Several settings, each with several seeds", min_width=260, elem_id="tune-experiment-name",
            )  # fmt: skip
            base = gr.Dropdown(
                listed(draft.bases, small), value="", label="Base", allow_custom_value=True, min_width=260,
                info="The lab's own is trained first where it is not there", elem_id="tune-experiment-base",
            )  # fmt: skip
        with gr.Row():
            source = gr.Dropdown(
                listed(draft.sources, usual), value="", label="Examples", allow_custom_value=True, min_width=260,
                info="A built-in set, a file, or a dataset of the Hub", elem_id="tune-experiment-source",
            )  # fmt: skip
            seeds = gr.Textbox(
                str(SEEDS), label="Seeds", info="Runs of each setting", max_lines=1, min_width=260,
                elem_id="tune-experiment-seeds",
            )  # fmt: skip
        question = html(elem_id="tune-experiment-question")
        begin = gr.Button("Start the experiment", variant="primary", elem_id="tune-experiment-start")
        said = html(elem_id="tune-experiment-said")
    gr.on(None, answer(asked), name, question, **QUICK)
    base.focus(lambda: gr.Dropdown(choices=listed(draft.bases, small)), None, base, **QUICK)
    source.focus(lambda: gr.Dropdown(choices=listed(draft.sources, usual)), None, source, **QUICK)
    return [name, base, source, seeds], begin, said


def asked(name: str) -> Markup:
    """What an experiment wants to know."""
    return note(experiment_of(known(name)).question)


def listed(access: Access, lined: object = None) -> tuple:
    """(the experiments as HTML, what tells them from others), both skipped where they are `lined` already."""
    jobs = [(job, record(job.path)) for job in all_jobs(access.workspace, ROOM)]
    now = [(job.id, "unreadable" if info is None else status_of(info), written(job)) for job, info in jobs]
    if now == lined:
        return gr.skip(), gr.skip()
    rows = []
    for (job, _), (name, status, _) in zip(jobs, now, strict=True):
        found = results_of(job) or {}
        done = f"{found['finished']} of {found['runs']}" if found.get("runs") else ""
        rows.append((name, status, done, found.get("conclusion") or ""))
    return draw.experiment_list(rows), now


def written(job: Run) -> int | None:
    """When the results were written last."""
    path = job.path / RESULTS
    return path.stat().st_mtime_ns if path.is_file() else None


def looked(access: Access, chosen: str, seen: dict) -> list:
    """(the stamp of what is shown, the experiment as HTML, two buttons); all skipped where nothing changed."""
    if not chosen:
        return [gr.skip()] * 4
    job = find(access, chosen)
    info = record(job.path) or job.info()
    status = status_of(info)
    stamp = {"experiment": job.id, "status": status, "progress": info["progress"], "written": written(job)}
    if stamp == seen:
        return [gr.skip()] * 4
    ended = status in ("failed", "interrupted")
    buttons = gr.Button(interactive=status in LIVE and status != "stopping"), gr.Button(interactive=ended)
    return [stamp, drawn(job, info, status, job.resume_command() if ended else ""), *buttons]


def drawn(job: Run, info: dict, status: str, command: str) -> Markup:
    """One experiment whole: how it stands, and what it found."""
    found = results_of(job)
    head = sweeps.standing(info, status, found, command)
    if found is None:
        return Markup(head + note("Nothing has been measured yet."))
    images = {one["file"]: job.path / one["file"] for one in found["figures"]}
    there = {name: path.read_bytes() for name, path in images.items() if path.parent == job.path and path.is_file()}
    return Markup(head + draw.report(found, there))


def find(access: Access, ref: str) -> Run:
    """The experiment that somebody at the page named. Raises ValueError where there is none."""
    job = open_job(access.workspace, ROOM, access.reference(ref))
    access.path(str(job.path))  # a link inside the workspace may lead out of it
    return job


def known(name: str) -> str:
    """One of the four. Raises ValueError for any other."""
    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}: choose one of {', '.join(NAMES)}")
    return name


def started(access: Access, name: str, base: str, source: str, seeds: str) -> tuple[str, Markup]:
    """(the id of the experiment that was started, what is said about it); the same one goes on where it was left."""
    access.check_write()
    experiment = experiment_of(known(name))
    if not str(seeds).strip().isdecimal():
        raise ValueError(f"seeds should be a whole number, such as {SEEDS}, not {seeds!r}")
    base = draft.inside(access, base.strip()) if (base or "").strip() else None
    source = draft.allowed_source(access, source.strip(), "source") if (source or "").strip() else None
    job = start(experiment.plan(base, source, int(seeds)), access.workspace)
    return job.id, note(f"{job.id} is in a process of its own; its runs are in the list of all runs.", "good")


def asked_to(access: Access, verb: str, chosen: str) -> None:
    """Stop the experiment that is shown, or go on with it; says what is going to happen."""
    access.check_write()
    gr.Info(request(find(access, chosen), verb), title="")


def opened(event: gr.EventData) -> str:
    return event.experiment
