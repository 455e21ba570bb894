"""One run on the Models tab: what it is, its curves, samples, checkpoints, recipe, origin and log, and managing it.

May import `page`, `data` and Gradio. Each part is drawn when the run is opened, and again when what it shows changed.
Handlers are plain functions of plain values; `build` binds them.
"""

from functools import partial

import gradio as gr
import numpy as np

from data.access import Access
from data.console import one_line
from hub import details, live, overview, tab_measures
from hub.adapter_card import adapter_facts
from hub.findings import read_findings
from hub.metrics import read_samples
from hub.registry import loss_of_base
from hub.runs import LIVE, Run
from page import findings as drawn_findings
from page import runs as draw
from page.chart import POINTS, Series, line_chart
from page.html import Markup, code, escape, facts, note
from page.tab import QUICK, answer, html

SAMPLES = 20  # texts shown, the newest first
SECONDS = 2.0  # between two looks at the folder
NAME, NOTE = 64, 2000  # characters of a run's name and of a note
SMALL_CHARTS = {  # column: (title, unit)
    "learning_rate": ("Learning rate", "learning rate"),
    "grad_norm": ("Gradient norm", "L2 norm before clipping"),
    "tokens_sec": ("Speed", "tokens a second"),
    "update_ratio": ("Size of a step", "std of the update / std of the weights"),
    "dead_perc": ("Silent units", "% of the feed-forward units"),
}
# once it is drawn, and the list above it has shrunk
SHOW = "() => setTimeout(() => document.getElementById('models-detail')?.scrollIntoView({behavior: 'smooth'}), 200)"


def build(access: Access, run_id: gr.Textbox, panel: gr.Column, head: gr.HTML) -> None:
    """What there is below an opened run's heading; drawn when it is opened, and again where it changed."""
    parts = {"head": head}
    with gr.Row(elem_classes="lab-models-columns"):
        parts["card"], parts["use"] = html(), html()
    with gr.Tabs():
        with gr.Tab("Curves"):
            with gr.Row():
                axis = gr.Radio(draw.AXIS_CHOICES, value="step", label="Against", elem_id="models-axis")
                log_y = gr.Checkbox(True, label="Logarithmic loss", min_width=120, elem_id="models-log-y")
            parts["curves"] = html(elem_id="models-curves")
            tab_measures.build(access, run_id, axis)
        for part in ("findings", "samples", "checkpoints", "recipe", "origin", "log"):
            with gr.Tab(part.capitalize()):
                parts[part] = html(elem_id=f"models-{part}")
        with gr.Tab("Manage"):
            name, remark, sure = build_manage(access, run_id)

    def follow_link(event: gr.EventData) -> str:
        return event.run

    parts["origin"].act(answer(follow_link), None, run_id, **QUICK)
    seen, timer, drawn = gr.State({}), gr.Timer(SECONDS, active=False), [parts[part] for part in PARTS]
    look = answer(partial(opened, access))
    filled = [run_id, panel, timer, seen, name, remark, sure, *drawn]
    shown = run_id.change(look, [run_id, axis, log_y], filled, **QUICK)
    shown.success(None, None, None, js=SHOW, api_visibility="private")
    again = answer(partial(followed, access))
    timer.tick(again, [axis, log_y, seen], [seen, *drawn], **QUICK)
    gr.on([axis.change, log_y.change], again, [axis, log_y, seen], [seen, *drawn], **QUICK)


def build_manage(access: Access, run_id: gr.Textbox) -> tuple[gr.Textbox, gr.Textbox, gr.Column]:
    """Name, note, and deleting after a second question. Returns the two fields and the question, for `opened`."""
    with gr.Row(elem_classes="lab-models-manage"):
        name = gr.Textbox(label="Name", info="What it is called here; its id stays", elem_id="models-name")
        rename = button("Rename", "models-rename", scale=0)
    with gr.Row(elem_classes="lab-models-manage"):
        remark = gr.Textbox(label="Note", lines=2, elem_id="models-note")
        keep = button("Keep the note", "models-keep-note", scale=0)
    delete = button("Delete this run", "models-delete", variant="stop")
    with gr.Column(visible=False) as sure:
        question = html()
        with gr.Row():
            yes = button("Delete it", "models-delete-yes", variant="stop")
            no = button("Keep it", "models-delete-no")
    gr.on([rename.click, name.submit], answer(partial(renamed, access)), [run_id, name], name, **QUICK)
    keep.click(answer(partial(noted, access)), [run_id, remark], remark, **QUICK)
    delete.click(answer(partial(asked_to_delete, access)), run_id, [sure, question, yes], **QUICK)
    yes.click(answer(partial(deleted, access)), run_id, [run_id, sure], **QUICK)
    no.click(lambda: gr.Column(visible=False), None, sure, **QUICK)
    return name, remark, sure


class Look:
    """An opened run at one moment, and how its curves are wanted."""

    def __init__(self, access: Access, run: Run, axis: str, log_y: bool):
        self.access, self.run, self.axis, self.log_y = access, run, axis, log_y
        self.info = overview.record(run.path)
        self.row = overview.row(run.path, self.info)

    def stamps(self) -> dict[str, tuple]:
        """For each part what tells it from another, and the run's id."""
        stamps = details.stamps(self.run, self.info, self.row.status)
        return stamps | {"curves": (*stamps["curves"], self.axis, self.log_y), "run": self.run.id}

    def draw(self, part: str) -> Markup:
        """A part as HTML; what is broken in the folder is told where it should be."""
        if part in OF_TRAINING and self.row.kind == "import":
            return note("this model was not trained in this run: see under Origin where it came from")
        try:
            return PARTS[part](self) if self.info or part in BARE else Markup()
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            return note(f"this cannot be shown: {one_line(error)}", "error")


def opened(access: Access, ref: str, axis: str, log_y: bool) -> tuple:
    """(the id, the panel, its timer, what it shows, name, note, no question yet, every part); empty for no run."""
    away = gr.Column(visible=False)
    if not ref:
        return gr.skip(), away, gr.Timer(active=False), {}, "", "", away, *[""] * len(PARTS)
    look = Look(access, overview.find(access, ref), axis, log_y)
    # `latest` may soon be another run: from here on the page means this one
    known = gr.skip() if ref == look.run.id else look.run.id
    state = gr.Column(visible=True), gr.Timer(active=True), look.stamps()
    return known, *state, look.row.name, look.row.note or "", away, *map(look.draw, PARTS)


def followed(access: Access, axis: str, log_y: bool, seen: dict) -> tuple:
    """(what is shown now, the parts that changed since `seen`); all else skipped."""
    stamps = seen
    if seen:
        look = Look(access, Run(access.workspace.root / "runs" / seen["run"]), axis, log_y)
        stamps = look.stamps()
    if stamps == seen:
        return (gr.skip(),) * (1 + len(PARTS))
    return stamps, *(gr.skip() if stamps[part] == seen[part] else look.draw(part) for part in PARTS)


def draw_card(look: Look) -> Markup:
    told = [*details.card(look.info, look.row.status), *adapter_facts(look.run, look.info)]
    return facts((name, draw.figure(value)) for name, value in told if value is not None)


def draw_curves(look: Look) -> Markup:
    one, across = live.read(look.run.path), draw.AXES[look.axis]
    lines = loss_lines(one, look.axis, details.floor(look.run, look.info))
    loss = line_chart(lines, across, draw.LOSS, look.log_y, "Loss")
    small = [
        line_chart([Series(title, *live.thin(*values, POINTS))], across, unit, title=title, height=160)
        for name, (title, unit) in SMALL_CHARTS.items()
        if len((values := one.measured(name, look.axis))[0])
    ]
    return Markup(f'{loss}<div class="lab-charts">{"".join(small)}</div>')


def loss_lines(one: live.Live, axis: str, floor: float | None) -> list[Series]:
    """Training loss, smooth before its own noise, validation loss, and the level that none can fall below."""
    x, y = one.measured("train_loss", axis)
    validation = one.measured("val_loss", axis)
    lines = [
        Series("training, each step", *live.thin(x, y, POINTS), "faint", 0),
        Series("training", *live.thin(*live.smooth(x, y), POINTS), colour=0),
        Series("validation", *validation, "dots", 1),
    ]
    reach = np.concatenate([x, validation[0]])
    if floor is not None and len(reach):
        ends = [reach.min(), reach.max()]
        lines.append(Series(f"entropy of the corpus ({floor:.3f})", ends, [floor, floor], "level", 2))
    return lines


def draw_origin(look: Look) -> Markup:
    runs, family = look.access.workspace.root / "runs", []
    for what, ref, revision in details.relatives(look.info):
        is_here = "/" not in ref and (runs / ref / "run.json").is_file()
        family.append((what, Markup(f"{draw.link(ref, ref) if is_here else escape(ref)} {escape(revision or '')}")))
    return facts([*family, *details.origin(look.info)])


def draw_findings(look: Look) -> Markup:
    """What the diagnosis at the run's end, or the last on the command line, found."""
    judged = read_findings(look.run.path)
    if judged is None:
        return note(f"Not diagnosed yet: python -m training.diagnose {look.run.id}{look.run.workspace_flag()}")
    return drawn_findings.findings(judged.findings, look.run.id)


PARTS = {
    "head": lambda look: draw.heading(look.row),
    "card": draw_card,
    "use": lambda look: draw.commands(details.loading(look.run), details.resume_command(look.run, look.info)),
    "curves": draw_curves,
    "findings": draw_findings,
    "samples": lambda look: draw.samples(read_samples(look.run.path)[: -SAMPLES - 1 : -1]),
    "checkpoints": lambda look: draw.checkpoint_table(
        details.kept(look.run, look.info, live.read(look.run.path)), look.run.id
    ),
    "recipe": lambda look: code(details.recipe(look.run)),
    "origin": draw_origin,
    "log": lambda look: draw.logs(details.log(look.run)),
}
OF_TRAINING = ("curves", "findings", "samples", "checkpoints", "recipe", "log")
BARE = ("head", "samples", "recipe", "log")  # parts that need no run.json


def renamed(access: Access, ref: str, name: str) -> str:
    """Give a run another name; its id and folder stay."""
    access.check_write()
    run, name = overview.find(access, ref), " ".join((name or "").split())
    if not 0 < len(name) <= NAME:
        raise ValueError(f"a name has 1 to {NAME} characters, not {len(name):,}")
    run.update(name=name)
    gr.Info(f"{run.id} has its new name")  # a toast may show HTML, and a name may hold some
    return name


def noted(access: Access, ref: str, remark: str) -> str:
    access.check_write()
    run, remark = overview.find(access, ref), (remark or "").strip()
    if len(remark) > NOTE:
        raise ValueError(f"a note has at most {NOTE:,} characters, not {len(remark):,}")
    run.update(note=remark or None)
    gr.Info("the note is kept" if remark else "the note is gone")
    return remark


def asked_to_delete(access: Access, ref: str) -> tuple:
    """(the question made visible, its words, the button that says yes)."""
    access.check_write()
    run = overview.find(access, ref)
    if overview.row(run.path, overview.record(run.path)).status in LIVE:
        raise ValueError(f"run {run.id} is {run.status}; stop it before deleting it")
    warning = loss_of_base(access.workspace, run)
    words = f"{warning} Delete {run.id} with all its checkpoints? This cannot be undone.".lstrip()
    return gr.Column(visible=True), note(words, "warning"), gr.Button(f"Delete {run.id}")


def deleted(access: Access, ref: str) -> tuple:
    access.check_write()
    run = overview.find(access, ref)
    run.delete()
    gr.Info(f"{run.id} is deleted")
    return "", gr.Column(visible=False)


def button(words: str, elem_id: str, **kwargs) -> gr.Button:
    return gr.Button(words, elem_id=elem_id, size="sm", min_width=130, **kwargs)
