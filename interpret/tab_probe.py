"""The Probes view: what can be read off a model's activations, layer by layer, beside chance and memory.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.probe`, `probe_cli` (words and figure),
`probe_sets`, `figures`, the picker's components and the panel that removes a part.
"""

import shlex
from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from data.workspace import Workspace
from hub.loaded import loaded
from interpret import tab_removed
from interpret.figures import default_path, save
from interpret.probe import SITES, Probes, probe
from interpret.probe_cli import KINDS, cells, draw, numbers_of
from interpret.probe_sets import ProbeSet, open_set, read_set
from interpret.probe_templates import TEMPLATES
from interpret.tab_picker import Picked
from page.chart import Series, line_chart
from page.html import Markup, code, note, table
from page.tab import MODEL, QUICK, answer, html

OWN = "your own, from the box below"
WANTED = "text,label\nThe keys,plural\nThe key,singular\n…"
HEAD = ("layer", "accuracy", "95 % interval", "control task", "selectivity, points", "shuffled", "commonest label")


@dataclass(frozen=True)
class Shown:
    """What the view shows now, kept for saving, and the command that makes it again, "" where the set was typed."""

    found: Probes
    labelled: ProbeSet
    ref: str
    site: str
    command: str


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""

    def see(ref: str | None, name: str, own: str, site: str) -> tuple[Markup, Shown]:
        labelled, source = chosen_set(name, own, access)
        found = probe(*loaded(ref, access), labelled, site)
        again = command(ref, source, site, access.workspace) if source else ""
        shown = Shown(found, labelled, ref, site, again)
        return drawn(shown), shown

    with gr.Row(equal_height=True):
        name = gr.Dropdown(
            [*((f"{key}: {question}", key) for key, (question, _) in TEMPLATES.items()), OWN],
            value=next(iter(TEMPLATES)), label="Labelled set", allow_custom_value=True, scale=3, min_width=280,
            info="The prompt above plays no part here. Or a .csv or .jsonl file in the workspace",
            elem_id="probe-set",
        )  # fmt: skip
        site = gr.Dropdown(list(SITES), value="resid_post", label="Site", scale=1, info="What is read in each layer")
    own = gr.Textbox(
        "", label="Examples of your own", lines=5, placeholder=WANTED, visible=False, elem_id="probe-own",
        info="A line text,label and such lines below it; text,start,end,label for a place in a text; or JSON lines",
    )  # fmt: skip
    with gr.Row():
        show = gr.Button("Fit the probes", variant="primary", elem_id="probe-show")
        keep = gr.Button("Save figure and numbers", elem_id="probe-save")
    view, told, shown = html(elem_id="probe-view"), html(), gr.State()
    target = gr.Textbox("L0", label="Part", info="A layer, L3, or a half of it, L3.attention; choose one in the table")
    tab_removed.build(access, picked, target)

    asked = [picked.model, name, own, site]
    name.change(lambda chosen: gr.Textbox(visible=chosen == OWN), name, own, **QUICK)
    show.click(answer(see), asked, [view, shown], **MODEL)
    keep.click(answer(partial(saved, access)), shown, told, **QUICK)
    view.act(answer(chosen_layer), None, target, **QUICK)


def chosen_layer(event: gr.EventData) -> str:
    """The layer whose row was clicked, as a part that can be removed."""
    return f"L{int(event.layer)}"


def chosen_set(name: str | None, own: str, access: Access) -> tuple[ProbeSet, str]:
    """The labelled set and a command's name for it: one of the lab's, an allowed file, "" for the text in the box."""
    if name == OWN:
        if not (own or "").strip():
            raise ValueError("the box is empty: write a first line text,label and your examples below it")
        return read_set(own, "your examples"), ""
    source = name if name in TEMPLATES else str(access.path(name or ""))
    return open_set(source), source


def drawn(shown: Shown) -> Markup:
    """The chart, its numbers, what they mean, and the command."""
    found, best = shown.found, shown.found.best
    said = (
        f"{shown.labelled.name}: {shown.labelled.question}. {found.fitted} examples to fit, {found.held_out} held out. "
        f"Best at {'what enters the first layer' if best.layer < 0 else f'layer {best.layer}'}: "
        f"{best.real.accuracy:.1%} ({best.real.low:.1%} to {best.real.high:.1%}); always the commonest label: "
        f"{best.real.majority:.1%}. {found.note}"
    )
    rows = [(pick(probed.layer), *cells(probed)[1:]) for probed in found.layers]
    parts = [note(said), chart(found, shown.site), table(HEAD, rows, numbers=len(HEAD) - 1)]
    return Markup("".join([*parts, code(shown.command)] if shown.command else parts))


def command(ref: str, source: str, site: str, workspace: Workspace) -> str:
    """What to type in a terminal for the same."""
    words = ["python", "-m", "interpret.probe", ref, "--set", source, "--site", site]
    elsewhere = [] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]
    return shlex.join([*words, *elsewhere])


def pick(layer: int) -> str | Markup:
    """A layer in the table, which can be clicked but for what enters the first."""
    if layer < 0:
        return "enters"
    return Markup(
        f'<button type="button" class="lab-probe-layer" data-act="layer" data-layer="{layer}">{layer}</button>'
    )


def chart(found: Probes, site: str) -> Markup:
    """Accuracy by layer; the ends of each 95 % interval are faint lines."""
    series = []
    for colour, (kind, (title, _)) in enumerate(KINDS.items()):
        scores = [(probed.layer, getattr(probed, kind)) for probed in found.layers if getattr(probed, kind)]
        if not scores:
            continue
        layers = [layer for layer, _ in scores]
        series.append(Series(title, layers, [100 * score.accuracy for _, score in scores], "dots", colour))
        for end in ("low", "high"):
            values = [100 * getattr(score, end) for _, score in scores]
            series.append(Series(f"{title}, {end}", layers, values, "faint", colour))
    layers = [probed.layer for probed in found.layers]
    majority = [100 * probed.real.majority for probed in found.layers]
    series.append(Series("always the commonest label", layers, majority, "level", 3))
    return line_chart(series, f"layer ({site}; −1: what enters the first)", "held-out accuracy, %")


def saved(access: Access, shown: Shown | None) -> Markup:
    """The figure and its numbers in the workspace; told where."""
    access.check_write()
    if shown is None:
        raise ValueError("there is nothing to save yet: fit the probes first")
    out = default_path(access.workspace, "probe", shown.ref, f"{shown.labelled.name}-{shown.site}")
    line = shown.command or "examples typed at the page"
    figure, numbers = save(draw(shown.found, shown.labelled, shown.site), numbers_of(shown.found), line, out)
    root = access.workspace.root
    return note(f"Saved {figure.relative_to(root)} and {numbers.relative_to(root)} in the workspace.", "good")
