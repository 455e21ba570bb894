"""The Train tab's second half: one run watched live, what it can be asked for, and who waits for whom.

May import `page`, `hub`, `data` and Gradio. All that is shown is read from the run folders; a second look draws only
what changed since the first. Nothing about a run is kept in the server: after a reload or a restart all is found again.
"""

import time
from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from data.console import one_line
from hub import details, live, overview
from hub.metrics import read_samples
from hub.queue import waiting_for
from hub.runs import LIVE, Run, status_of
from page import runs as draw_runs
from page import training as draw
from page.chart import POINTS, Series, line_chart
from page.html import Markup, note
from page.tab import QUICK, answer, html
from training import tab_diagnose, tab_measures
from training.control import POSSIBLE, request

TICK, QUEUE_TICK = 1.0, 3.0  # seconds between two looks at the watched run, and at all of them
PATIENCE = 5.0  # seconds of `stopping` after which a process may be ended at once
NEWEST = 20  # runs to choose from, besides those that live
SAMPLES = 20  # texts shown, the newest first
STEP, LOSS = "optimizer step", "loss (nats per token)"
SMALL_CHARTS = {  # column: (title, unit)
    "learning_rate": ("Learning rate", "learning rate"),
    "grad_norm": ("Gradient norm", "L2 norm before clipping"),
    "tokens_sec": ("Speed", "tokens a second"),
}
VERBS = ("pause", "resume", "stop", "save")
STOP, STOP_NOW = "Stop", "Stop at once"
NOTHING = "Nothing has been trained yet: choose a recipe above and start it."


@dataclass(frozen=True)
class Watch:
    """What the rest of the tab needs: `watched` is the run that is shown, `fork` is clicked to fork it."""

    watched: gr.Dropdown
    fork: gr.Button


def build(access: Access, prefix: str = "train", kind: str | None = None) -> Watch:
    """Lay the half out inside the caller's tab.

    Args:
        prefix: what the components' ids begin with; a page may watch runs in more than one place.
        kind: of which runs may be chosen from the list; None: all that train. Any other can be named.
    """
    with gr.Row(equal_height=True):
        watched = gr.Dropdown(
            [], label="Watch a run", info="Those that live, and the newest that ended; any other by its id",
            allow_custom_value=True, elem_id=f"{prefix}-watch", min_width=260, scale=2,
        )  # fmt: skip
        with gr.Column(min_width=260):
            queue = html(elem_id=f"{prefix}-queue")
    head = html(elem_id=f"{prefix}-status")
    with gr.Row(elem_classes="lab-train-buttons"):
        buttons = {verb: gr.Button(words, size="sm", min_width=100, interactive=False, elem_id=f"{prefix}-{verb}",
                                   visible=verb != "fork" or kind in (None, "pretrain"))
                   for verb, words in (("pause", "Pause"), ("resume", "Resume"), ("stop", STOP), ("save", "Save now"),
                                       ("fork", "Fork"))}  # fmt: skip
    log_y = gr.Checkbox(True, label="Logarithmic loss", elem_id=f"{prefix}-log-y", container=False)
    parts = {"head": head, **buttons, "loss": html(elem_id=f"{prefix}-loss"), "small": html(elem_id=f"{prefix}-small")}
    if kind in (None, "pretrain"):  # its rules are about training from nothing
        tab_diagnose.build(access, watched, prefix)
    tab_measures.build(access, watched, prefix)
    with gr.Row():
        with gr.Column(min_width=300):
            gr.HTML('<h3 class="lab-train-h">What it writes, newest first</h3>', padding=False)
            parts["samples"] = html(elem_id=f"{prefix}-samples")
        with gr.Column(min_width=300):
            gr.HTML('<h3 class="lab-train-h">Log</h3>', padding=False)
            parts["log"] = html(elem_id=f"{prefix}-log")
    seen = gr.State({})
    look, asked, shown = answer(partial(looked, access)), [watched, log_y, seen], [seen, *parts.values()]
    gr.Timer(TICK).tick(look, asked, shown, **QUICK)
    gr.on([watched.change, log_y.change], look, asked, shown, trigger_mode="always_last", **QUICK)
    for verb in VERBS:
        button = buttons[verb]
        told = button.click(answer(partial(controlled, access, verb)), [watched, button], None, **QUICK)
        told.then(look, asked, shown, **QUICK)
    build_choice(access, watched, queue, kind)
    return Watch(watched, buttons["fork"])


def build_choice(access: Access, watched: gr.Dropdown, queue: gr.HTML, kind: str | None) -> None:
    """What there is to watch: at first the newest run that lives; the queue, a line for each of those."""
    lined = gr.State(None)
    rows = answer(partial(queued, access))
    gr.on(None, answer(partial(arrived, access, kind)), None, watched, **QUICK)
    gr.on(None, rows, None, [queue, lined], **QUICK)
    gr.Timer(QUEUE_TICK).tick(rows, lined, [queue, lined], **QUICK)
    watched.focus(lambda: gr.Dropdown(choices=choices(access, kind)), None, watched, **QUICK)

    def follow(event: gr.EventData) -> str:
        return event.run

    queue.act(answer(follow), None, watched, **QUICK)


def choices(access: Access, kind: str | None = None) -> list[str]:
    """Runs that train, those that wait, then those that ended; the newest first of each. `kind` None: of any kind."""
    order = {"queued": 1} | dict.fromkeys(POSSIBLE.keys() - set(LIVE), 2)
    known = [(path, info) for path, info in overview.records(access.workspace) if info]
    found = [(path.name, order.get(status_of(info), 0)) for path, info in known if kind is None or info["kind"] == kind]
    ended = [run_id for run_id, place in found if place == 2][:NEWEST]
    return [*(run_id for run_id, place in sorted(found, key=lambda one: one[1]) if place < 2), *ended]


def arrived(access: Access, kind: str | None = None) -> gr.Dropdown:
    """What there is to watch, the first of it chosen."""
    known = choices(access, kind)
    return gr.Dropdown(choices=known, value=known[0]) if known else gr.Dropdown(choices=known)


def queued(access: Access, lined: object = None) -> tuple:
    """(the live runs as HTML, what tells them from others), both skipped where they are `lined` already."""
    alive = [(path, info) for path, info in overview.records(access.workspace) if info and status_of(info) in LIVE]
    rows = []
    for path, info in sorted(alive, key=lambda one: one[1].get("queued_at") or one[1]["created_at"]):
        status, at = status_of(info), info["progress"]
        steps = f"{at.get('step') or 0:,} of {at['steps']:,}" if at.get("steps") else ""
        waits = waiting_for(Run(path), access.workspace) if status == "queued" else None
        rows.append((path.name, status, steps, waits or ""))
    return (gr.skip(), gr.skip()) if rows == lined else (draw.queue(rows), rows)


class Look:
    """The watched run at one moment, and how its curves are wanted."""

    def __init__(self, access: Access, ref: str | None, log_y: bool, seen: dict):
        self.run, self.info, self.log_y, self.waits, self.stamps = None, None, log_y, None, {"run": None}
        self.problem = note(NOTHING)
        if ref:
            try:
                self.run = overview.find(access, ref)
                self.info = overview.record(self.run.path)
                self.problem = note(f"run.json of {self.run.id} cannot be read", "error")
            except ValueError as error:
                self.problem = note(one_line(error), "error")
        if self.info is None:
            self.stamps |= {"head": str(self.problem)}
            return
        self.status = status_of(self.info)
        if self.status == "queued":
            self.waits = waiting_for(self.run, access.workspace)
        self._stamp(seen if seen.get("run") == self.run.id else {})

    def _stamp(self, seen: dict) -> None:
        """For each part what tells it from another; `since` is when the run was first seen stopping."""
        since = (seen.get("since") or time.time()) if self.status == "stopping" else None
        self.late = since is not None and time.time() - since > PATIENCE
        stamps = details.stamps(self.run, self.info, self.status)
        curves = (*stamps["curves"], self.log_y)
        self.has_checkpoints = stamps["checkpoints"][0] is not None
        self.stamps = {"run": self.run.id, "since": since, "samples": stamps["samples"], "log": stamps["log"]}
        self.stamps |= {"head": (*stamps["head"], self.waits), "loss": curves, "small": curves}
        self.stamps["buttons"] = (self.status, self.late, self.has_checkpoints)

    def draw(self, part: str) -> object:
        """A part as it is shown; what is broken in the folder is told where it should be."""
        if self.info is None:
            return (
                self.problem
                if part == "head"
                else [gr.Button(interactive=False)] * 5
                if part == "buttons"
                else Markup()
            )
        try:
            return PARTS[part](self)
        except (ValueError, OSError, KeyError, TypeError) as error:
            return note(f"this cannot be shown: {one_line(error)}", "error")


def looked(access: Access, ref: str | None, log_y: bool, seen: dict) -> list:
    """(the stamps of what is shown, then head, five buttons, charts, samples and log); what is as `seen` is skipped."""
    look = Look(access, ref, log_y, seen)
    stamps, other = look.stamps, look.stamps["run"] != seen.get("run")
    drawn: list[object] = [gr.skip() if stamps == seen else stamps]
    for part in PARTS:
        same = not other and stamps.get(part) == seen.get(part)
        skipped = [gr.skip()] * 5 if part == "buttons" else gr.skip()
        shown = skipped if same else look.draw(part)
        drawn += shown if part == "buttons" else [shown]
    return drawn


def draw_head(look: Look) -> Markup:
    """How the run stands and, where it ended early, what to do."""
    run, remedy = look.run, ""
    if look.status in ("failed", "interrupted"):
        remedy = f"Resume goes on from {run.newest_checkpoint_name() or 'its beginning'}, here or in a terminal:"
    return draw.standing(run.id, look.status, look.info, look.waits, remedy, run.resume_command() if remedy else "")


def draw_buttons(look: Look) -> list[gr.Button]:
    """Each button as the run's status allows it; a stop that takes long may be made short."""
    possible = POSSIBLE.get(look.status, ())
    able = {verb: gr.Button(interactive=verb in possible) for verb in VERBS}
    able["stop"] = gr.Button(STOP_NOW if look.late else STOP, interactive=look.late or "stop" in possible)
    return [*able.values(), gr.Button(interactive=look.has_checkpoints and look.info.get("kind") == "pretrain")]


def loss_lines(one: live.Live, floor: float | None) -> list[Series]:
    """Training loss, smooth before its own noise, validation loss, and the level that none can fall below."""
    steps, losses = one.measured("train_loss")
    lines = [
        Series("training, each step", *live.thin(steps, losses, POINTS), "faint", 0),
        Series("training", *live.thin(*live.smooth(steps, losses), POINTS), colour=0),
        Series("validation", *one.measured("val_loss"), "dots", 1),
    ]
    if floor is not None and len(steps):
        lines.append(Series(f"entropy of the corpus ({floor:.3f})", steps[[0, -1]], [floor, floor], "level", 2))
    return lines


def draw_small(one: live.Live) -> Markup:
    """Learning rate, gradient norm and speed, side by side."""
    charts = (
        line_chart([Series(title, *live.thin(*one.measured(name), POINTS // 2))], STEP, unit, title=title, height=140)
        for name, (title, unit) in SMALL_CHARTS.items()
    )
    return Markup(f'<div class="lab-charts">{"".join(charts)}</div>')


PARTS = {
    "head": draw_head,
    "buttons": draw_buttons,
    "loss": lambda look: line_chart(
        loss_lines(live.read(look.run.path), details.floor(look.run, look.info)), STEP, LOSS, look.log_y, "Loss"
    ),
    "small": lambda look: draw_small(live.read(look.run.path)),
    "samples": lambda look: draw_runs.samples(read_samples(look.run.path)[: -SAMPLES - 1 : -1]),
    "log": lambda look: draw_runs.logs(details.log(look.run)),
}


def controlled(access: Access, verb: str, ref: str | None, words: str = "") -> None:
    """Ask the watched run for something; says what is going to happen."""
    gr.Info(ask(access, ref or "", verb, now=words == STOP_NOW))


def ask(access: Access, ref: str, verb: str, now: bool = False) -> str:
    """Ask a run's process for something. Raises ValueError where that makes no sense for the run as it stands."""
    access.check_write()
    return request(overview.find(access, ref), verb, now)
