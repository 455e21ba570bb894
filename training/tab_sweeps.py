"""The Train tab's third part: sweeps, what they found, and a new one from its file's text.

May import `page`, `hub`, `data` and Gradio. A sweep is a process of its own; all that is shown is read from its folder,
and what is named in a file that somebody typed goes through `Access` before anything is opened.
"""

from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from data.workspace import read_json
from hub.overview import record
from hub.runs import LIVE, Run, status_of
from page import sweeps as draw
from page.html import Markup, code, note
from page.tab import QUICK, WORK, answer, html
from training import draft, saved
from training.control import request
from training.jobs import all_jobs, open_job
from training.sweep import FILE, ROOM, start
from training.sweep_file import parse_sweep
from training.sweep_plan import Sweep
from training.sweep_results import ordered
from training.sweep_time import plan, told

TICK = 3.0  # seconds between two looks
EXAMPLE = """\
name: activations
question: Is a gated feed-forward block better than a plain one?
base:               # a recipe's name, or its parts; what is left out has its default
  train: {steps: 300}
grid:               # every combination is a point; or `points`, a list
  model.gated_mlp: [true, false]
seeds: 3            # how many, or a list
metric: val_loss
threshold:          # what you expect, written down before: at least this much better
  better: {model.gated_mlp: true}
  than: {model.gated_mlp: false}
  by: 0.02
"""


@dataclass(frozen=True)
class Sweeps:
    """What the rest of the tab needs: `run` holds the run of a sweep that was chosen last."""

    run: gr.Textbox


def build(access: Access) -> Sweeps:
    """Lay the part out inside the caller's tab."""
    run, chosen = (gr.Textbox(visible="hidden", label=label) for label in ("run of a sweep", "sweep"))
    seen, lined = gr.State({}), gr.State(None)
    listing = html(elem_id="sweeps-list")
    shown = html(elem_id="sweeps-shown")
    with gr.Row(elem_classes="lab-train-buttons"):
        buttons = [
            gr.Button(words, size="sm", min_width=100, interactive=False, elem_id=f"sweeps-{words.lower()}")
            for words in ("Stop", "Resume")
        ]
    with gr.Accordion("A new sweep", open=False, elem_id="sweeps-new"):
        text = gr.Code(EXAMPLE, language="yaml", label="What is varied, how often, and what is expected", lines=12)
        with gr.Row():
            look_first = gr.Button("What would be trained?", min_width=140, elem_id="sweeps-plan")
            begin = gr.Button("Start the sweep", variant="primary", min_width=140, elem_id="sweeps-start")
        planned = html(elem_id="sweeps-planned")
    rows, look = answer(partial(listed, access)), answer(partial(looked, access))
    parts = [seen, shown, *buttons]
    gr.on(None, rows, None, [listing, lined], **QUICK)
    timer = gr.Timer(TICK)
    timer.tick(rows, lined, [listing, lined], **QUICK)
    timer.tick(look, [chosen, seen], parts, **QUICK)
    chosen.change(look, [chosen, seen], parts, **QUICK)
    listing.act(answer(opened), None, chosen, **QUICK)
    shown.act(answer(run_of), None, run, **QUICK)
    look_first.click(answer(partial(previewed, access)), text, planned, **WORK)
    begun = begin.click(answer(partial(started, access)), text, [chosen, planned], **WORK)
    told_to = [button.click(answer(partial(do, access)), chosen, None, **QUICK)
               for button, do in zip(buttons, (stopped, resumed), strict=True)]  # fmt: skip
    for done in (begun, *told_to):
        done.success(rows, lined, [listing, lined], **QUICK).then(look, [chosen, seen], parts, **QUICK)
    return Sweeps(run)


def listed(access: Access, lined: object = None) -> tuple:
    """(the sweeps as HTML, what tells them from others), both skipped where they are `lined` already."""
    rows = []
    for job in all_jobs(access.workspace, ROOM):
        info, found = record(job.path), results_of(job)
        if info is None or found is None:
            rows.append((job.id, "unreadable" if info is None else status_of(info), "", "", ""))
            continue
        verdict = found["verdict"]["verdict"] if found["verdict"] else "–"
        rows.append((job.id, status_of(info), f"{found['finished']} of {found['runs']}", found["metric"], verdict))
    return (gr.skip(), gr.skip()) if rows == lined else (draw.sweep_list(rows), rows)


def looked(access: Access, chosen: str, seen: dict) -> list:
    """(the stamp of what is shown, the sweep as HTML, two buttons); all skipped where nothing changed."""
    if not chosen:
        return [gr.skip()] * 4
    job = find(access, chosen)
    info, path = record(job.path) or job.info(), job.path / "results.json"
    status = status_of(info)
    written = path.stat().st_mtime_ns if path.is_file() else None
    stamp = {"sweep": job.id, "status": status, "progress": info["progress"], "written": written}
    if stamp == seen:
        return [gr.skip()] * 4
    ended = status in ("failed", "interrupted")
    buttons = gr.Button(interactive=status in LIVE and status != "stopping"), gr.Button(interactive=ended)
    return [stamp, drawn(job, info, status, job.resume_command() if ended else ""), *buttons]


def drawn(job: Run, info: dict, status: str, command: str) -> Markup:
    """One sweep whole: standing, verdict, chart, table, file."""
    found = results_of(job)
    file = f"<details><summary>The file</summary>{code((job.path / FILE).read_text(encoding='utf-8'))}</details>"
    if found is None:
        return Markup(draw.standing(info, status, None, command) + note("Nothing has been measured yet.") + file)
    points = ordered(found)
    chart, figures = draw.points_chart(found, points), draw.points_table(points)
    return Markup(
        f"{draw.standing(info, status, found, command)}{draw.verdict(found['verdict'])}{chart}{figures}{file}"
    )


def results_of(job: Run) -> dict | None:
    """What the sweep has found so far; None where there is nothing that can be read."""
    try:
        return read_json(job.path / "results.json")
    except (OSError, ValueError):
        return None


def find(access: Access, ref: str) -> Run:
    """The sweep that somebody at the page named. Raises ValueError where there is none."""
    job = open_job(access.workspace, ROOM, access.reference(ref))
    access.path(str(job.path))  # a link inside the workspace may lead out of it
    return job


def read(access: Access, text: str) -> Sweep:
    """A sweep from its file's text, everything that it names checked."""
    return parse_sweep(
        text or "",
        access.workspace,
        read_base=lambda name: saved.read(access.workspace, name),
        locate=lambda parts: draft.permitted(access, parts),
    )


def previewed(access: Access, text: str) -> Markup:
    """What the text would train, and how long that may take."""
    return code(told(plan(read(access, text), access.workspace)))


def started(access: Access, text: str) -> tuple[str, Markup]:
    """(the id of the sweep that was started, what is said about it); the same text goes on where it was left."""
    access.check_write()
    sweep = read(access, text)
    plan(sweep, access.workspace)  # refuses sizes that no machine could hold
    job = start(sweep, access.workspace)
    return job.id, note(f"{job.id} is in a process of its own; its runs wait for their turn as all others.", "good")


def stopped(access: Access, chosen: str) -> None:
    access.check_write()
    gr.Info(request(find(access, chosen), "stop"), title="")


def resumed(access: Access, chosen: str) -> None:
    access.check_write()
    gr.Info(request(find(access, chosen), "resume"), title="")


def opened(event: gr.EventData) -> str:
    return event.sweep


def run_of(event: gr.EventData) -> str:
    return event.run
