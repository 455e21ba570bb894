"""The Cause view: remove parts of a model, patch a run with another, steer by a direction.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.ablation` and its figure, the picker's components
and the tabs that this one is made of.
"""

from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret import tab_figure, tab_patching, tab_removed, tab_steering
from interpret.ablation import HALVES, Sweep, sweep
from interpret.cause_figures import draw_sweep, sweep_numbers
from interpret.tab_figure import Shown
from interpret.tab_picker import Picked
from page.heatmap import heatmap
from page.html import Markup, code, note
from page.tab import MODEL, QUICK, answer, html

PROGRESS = gr.Progress(track_tqdm=True)  # as a handler's default: its tqdm bars are shown in the page


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""
    with gr.Tabs(elem_id="cause-kinds"):
        with gr.Tab("Remove", elem_id="cause-remove-tab"):
            build_removal(access, picked)
        with gr.Tab("Patch", elem_id="cause-patch-tab"):
            tab_patching.build(access, picked)
        with gr.Tab("Steer", elem_id="cause-steer-tab"):
            tab_steering.build(access, picked)


def build_removal(access: Access, picked: Picked) -> None:
    """Parts that somebody names, and below them every part in turn."""
    target = gr.Textbox(
        "", label="What is removed", elem_id="cause-target",
        info="L3H2 is a head, L3.attention and L3.mlp are halves of a layer, L3 is all of it; several with blanks",
    )  # fmt: skip
    panel = tab_removed.build(access, picked, target)
    with gr.Row():
        every = gr.Button("Each part in turn", variant="primary", elem_id="cause-sweep", min_width=200, scale=0)
    state = gr.State(None)
    maps = html(elem_id="cause-maps")
    kept = tab_figure.build(access, state, "cause")
    how = [panel.how, panel.reference]
    every.click(answer(partial(see, access)), [*picked, *how], [state, maps, kept], **MODEL)
    chosen = maps.act(answer(choose), None, target, **QUICK)
    chosen.then(answer(partial(tab_removed.removed, access)), [*picked, target, *how], panel.shown, **MODEL)


def see(
    access: Access, ref: str | None, prompt: str, how: str, reference: str, progress: gr.Progress = PROGRESS
) -> tuple[Shown, Markup, str]:
    """Every part removed by itself: state, maps, what was saved."""
    found = sweep(*loaded(ref, access), prompt, how, reference)
    ref = access.reference(ref)
    flags = {"prompt": prompt, "all-heads": True, **tab_removed.how_flags(how, reference)}
    command = tab_figure.command("ablate", ref, flags, access.workspace)
    return Shown("ablate", ref, found, draw_sweep, sweep_numbers, command), draw(found, command), ""


def draw(found: Sweep, command: str) -> Markup:
    """Two maps by layer: heads, and halves of the layers; a click on a part removes it."""
    L, H = found.heads.shape
    gained = found.heads - found.loss
    layers = [f"layer {layer}" for layer in range(L)]
    unit = "nats per token"
    heads = heatmap(
        gained, layers, [str(head) for head in range(H)], unit,
        title="What the loss gains without each head", act="head", corner="layer \\ head",
        titles=[[f"without L{r}H{c}: {gained[r, c]:+.4f} {unit}" for c in range(H)] for r in range(L)],
    )  # fmt: skip
    halves = heatmap(
        found.halves - found.loss, layers, HALVES, unit,
        title="… and without each half of a layer", act="half",
        words=[[f"{value:+.3f}" for value in row] for row in found.halves - found.loss],
        titles=[[f"without L{layer}.{half}" for half in HALVES] for layer in range(L)],
    )  # fmt: skip
    said = note(
        f"With all parts the prompt costs {found.loss:.4f} nats per token. A click removes a part, and tells above "
        f"what becomes of the next token. {found.read.note}".rstrip()
    )
    return Markup(f'{said}<div class="lab-cause-maps">{heads}{halves}</div>{code(command)}')


def choose(event: gr.EventData) -> str:
    """The part that was clicked, by its name."""
    half = f".{HALVES[int(event.column)]}" if event.act == "half" else f"H{int(event.column)}"
    return f"L{int(event.row)}{half}"
