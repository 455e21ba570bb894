"""The Timeline view: a run's model over its checkpoints, with a slider through them.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.timeline` and what draws it, the picker's
components and the panel that removes a part. Points are measured one at a time and kept: stopping loses nothing.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic

import gradio as gr
import numpy as np

from data.access import Access
from hub.checkpoints import step_name
from hub.runs import Run
from interpret import tab_removed
from interpret.figures import default_path, save
from interpret.probe_templates import TEMPLATES
from interpret.tab_picker import Picked
from interpret.timeline import Timeline, collect, compute, default_texts, formed, missing, revisions
from interpret.timeline_figure import LOSSES, NAMED, draw, lines_of, numbers_of
from interpret.timeline_measure import BY_HEAD, BY_LEVEL, SINGLE, Settings
from page.chart import Series, line_chart
from page.heatmap import heatmap
from page.html import Markup, code, facts, note, progress
from page.tab import QUICK, answer, html

HELD_OUT, PROMPT = "texts that the run held out", "the prompt above"
MEASURING = {"api_visibility": "private", "concurrency_id": "timeline", "concurrency_limit": 1}
"""Minutes of a long run: not in the queue of the other views, which would wait for it."""
HEIGHT = 150  # of a small picture, in CSS pixels


@dataclass(frozen=True)
class Shown:
    """What the view shows now, and the command that makes it again."""

    timeline: Timeline
    command: str


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""
    gr.Markdown("The run of the model chosen above, over its checkpoints. Each is measured once and kept with the run.")
    with gr.Row():
        source = gr.Radio([HELD_OUT, PROMPT], value=HELD_OUT, label="Text that is read", elem_id="timeline-source")
        every = gr.Number(1, label="Every n-th checkpoint", minimum=1, precision=0, min_width=130, scale=0)
        without = gr.Textbox("", label="Also without", info="Parts such as L1H0: what copying loses", min_width=160)
        choices = [("none", ""), *((f"{key}: {question}", key) for key, (question, _) in TEMPLATES.items())]
        probe = gr.Dropdown(choices, value="", label="Probe", info="Fitted at each checkpoint: slower", min_width=160)
    with gr.Row():
        show = gr.Button("Show the timeline", variant="primary", elem_id="timeline-show")
        stop = gr.Button("Stop measuring", elem_id="timeline-stop")
        keep = gr.Button("Save figure and numbers", elem_id="timeline-save")
    told, said, shown = html(elem_id="timeline-progress"), html(), gr.State()
    charts = html(elem_id="timeline-charts")
    revision = gr.Slider(
        0, 1, value=0, step=1, label="Checkpoint", info="From the first to the last", elem_id="timeline-slider",
        interactive=True,
    )  # fmt: skip
    moment = html(elem_id="timeline-moment")
    with gr.Row():
        model = gr.Textbox("", label="Model", info="The checkpoint that the slider stands at", elem_id="timeline-model")
        told_part = "A head, L0H2, or L0.mlp; click a head in the maps above"
        target = gr.Textbox("L0H0", label="Part", info=told_part, elem_id="timeline-part")
    tab_removed.build(access, Picked(model, picked.prompt), target)

    asked = [*picked, source, every, without, probe]
    running = show.click(answer(partial(follow, access)), asked, [told, charts, revision, shown], **MEASURING)
    running.then(answer(at), [shown, revision], [moment, model], **QUICK)
    stop.click(lambda: note("Stopped. What was measured is kept; the same button goes on."), None, told,
               cancels=[running], **QUICK)  # fmt: skip
    revision.change(answer(at), [shown, revision], [moment, model], **QUICK)
    keep.click(answer(partial(saved, access)), shown, said, **QUICK)
    moment.act(answer(chosen_head), shown, target, **QUICK)


def follow(
    access: Access, ref: str | None, prompt: str, source: str, every: float, without: str, probe: str
) -> Iterator[tuple]:
    """Measure what is missing, telling how far it is, then show everything."""
    run = Run.open(access.workspace, access.reference(ref).partition("@")[0])
    texts = (prompt,) if source == PROMPT else default_texts(run, access.workspace)
    settings = Settings.of(texts, (without or "").replace(",", " ").split(), named_set(probe, access))
    paths = revisions(run, int(every or 1))
    wanted = missing(run, settings, paths)
    if wanted:
        access.check_write()
    began = monotonic()
    for done, _ in enumerate(compute(run, settings, paths), 1):
        left = (monotonic() - began) / done * (len(wanted) - done)
        words = f"{done} of {len(wanted)} checkpoints measured, {left:.0f} s to go"
        yield progress(done / len(wanted), words), gr.skip(), gr.skip(), gr.skip()
    timeline = collect(run, settings, paths)
    shown = Shown(timeline, command(run, settings, source, int(every or 1)))
    last = len(timeline.steps) - 1
    slider = gr.Slider(0, max(last, 1), value=last, label=f"Checkpoint, 0 to {last}")
    yield "", drawn(shown), slider, shown


def named_set(name: str | None, access: Access) -> str:
    """A labelled set of the lab's, or a file that the page may read."""
    return name if not name or name in TEMPLATES else str(access.path(name))


def command(run: Run, settings: Settings, source: str, every: int) -> str:
    """The command that makes the same figure."""
    words = ["python", "-m", "interpret.timeline", run.id]
    words += ["--prompt", settings.texts[0]] if source == PROMPT else []
    words += ["--without", *settings.without] if settings.without else []
    words += ["--probe", settings.probe] if settings.probe else []
    words += ["--every", str(every)] if every != 1 else []
    return shlex.join(words) + run.workspace_flag()


def drawn(shown: Shown) -> Markup:
    """A small chart for each thing measured, the loss beneath, what became of the heads, and the command."""
    timeline = shown.timeline
    small = [chart(timeline, name) for name in (*BY_HEAD, *BY_LEVEL) if name in timeline.values]
    named = [name for name in LOSSES if name in timeline.values]
    if named:
        lines = [Series(SINGLE[name][0], timeline.steps, timeline.values[name]) for name in named]
        small.append(line_chart(lines, "step", "nats per token", title="random tokens, repeated once", height=HEIGHT))
    curve = [
        Series(name, steps, losses, style="faint" if name == "training" else "line", colour=0)
        for name, (steps, losses) in timeline.curve.items()
    ]
    foot = line_chart(curve, "step", "nats per token", title=f"loss of {timeline.run}", height=HEIGHT)
    return Markup(
        f'{note(story(timeline))}<div class="lab-timeline-grid">{"".join(small)}</div>{foot}{code(shown.command)}'
    )


def chart(timeline: Timeline, name: str) -> Markup:
    """One line a head or a level; those that change little are faint."""
    title, unit = (BY_HEAD | BY_LEVEL)[name]
    lines = lines_of(timeline, name)
    series = [
        Series(label, timeline.steps, values, "line" if place < NAMED else "faint", number)
        for place, (number, label, values) in enumerate(lines)
    ]
    return line_chart(series, "step", unit, title=title, height=HEIGHT)


def story(timeline: Timeline) -> str:
    """Which heads became what, and when."""
    parts = [f"{one['head']}: {one['kind']}, from step {one['step']:,} on" for one in formed(timeline)]
    told = "; ".join(parts) if parts else "no head has become one of a known kind"
    return f"{len(timeline.steps)} checkpoints. {told[0].upper()}{told[1:]}."


def at(shown: Shown | None, place: float) -> tuple[Markup | str, str]:
    """One checkpoint: its losses, and each score by layer and head; and the checkpoint's name."""
    if shown is None:
        return "", ""
    timeline = shown.timeline
    i = min(max(int(place), 0), len(timeline.steps) - 1)
    told = [(SINGLE[name][0], f"{timeline.values[name][i]:.3f} nats") for name in SINGLE if name in timeline.values]
    rows = [f"layer {layer}" for layer in timeline.layers]
    maps = [
        heatmap(
            timeline.values[name][i], rows, [str(h) for h in range(timeline.values[name].shape[2])], unit,
            title=title, top=1.0, act="head", corner="head",
        )
        for name, (title, unit) in BY_HEAD.items() if name in timeline.values
    ]  # fmt: skip
    head = facts([("checkpoint", f"step {timeline.steps[i]:,}"), *told])
    name = f"{timeline.run}@{step_name(timeline.steps[i])}"
    return Markup(f'{head}<div class="lab-timeline-grid">{"".join(maps)}</div>'), name


def chosen_head(shown: Shown | None, event: gr.EventData) -> str:
    """The head that was clicked in a map, as a part that can be removed."""
    if shown is None:
        return "L0H0"
    layers = np.array(shown.timeline.layers)
    return f"L{layers[int(event.row)]}H{int(event.column)}"


def saved(access: Access, shown: Shown | None) -> Markup:
    """Write the figure and its numbers to the workspace."""
    access.check_write()
    if shown is None:
        raise ValueError("there is nothing to save yet: show a timeline first")
    out = default_path(access.workspace, "timeline", shown.timeline.run)
    figure, numbers = save(draw(shown.timeline), numbers_of(shown.timeline), shown.command, out)
    root = access.workspace.root
    return note(f"Saved {figure.relative_to(root)} and {numbers.relative_to(root)} in the workspace.", "good")
