"""Below the attention view: its numbers layer by layer, what each head looks like, and what if one is removed.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.heads`, `attention`, `figures`, the picker's
components and the panel that removes a part.
"""

import shlex
from functools import partial

import gradio as gr
import numpy as np

from data.access import Access
from hub.loaded import loaded
from interpret import tab_removed
from interpret.attention import STATISTICS, Attention, patterns, statistics
from interpret.figures import default_path, save
from interpret.heads import KINDS, SURE, HeadScores, looks_like
from interpret.prompt import read_prompt
from interpret.tab_picker import Picked
from page.chart import Series, line_chart
from page.heatmap import heatmap
from page.html import Markup, code, note
from page.tab import MODEL, QUICK, answer, html

HEIGHT = 130  # of a small chart, in CSS pixels
TOLD = 24  # heads named in words; the maps show all


def build(access: Access, picked: Picked) -> gr.HTML:
    """Lay the panels out inside the caller's view; returns the one with the scores, which another model empties."""
    with gr.Row():
        look = gr.Button("What does each head look like", elem_id="attention-looks")
        keep = gr.Button("Save figure and numbers", elem_id="attention-save")
    maps, said = html(elem_id="attention-heads"), html(elem_id="attention-saved")
    target = gr.Textbox(
        "L0H0", label="Part", info="A head, L0H2, or L0.mlp; click a head above", elem_id="attention-part"
    )
    tab_removed.build(access, picked, target)
    look.click(answer(partial(scored, access)), [*picked], maps, **MODEL)
    keep.click(answer(partial(saved, access)), [*picked], said, **MODEL)
    maps.act(answer(chosen_head), None, target, **QUICK)
    return maps


def by_layer(attention: Attention) -> Markup:
    """Each statistic over the layers: the mean over a layer's heads, its least and its most."""
    values = statistics(attention.weights, attention.windows)
    charts = []
    for name, (title, unit) in STATISTICS.items():
        heads = values[name] * (100 if unit == "%" else 1)  # (L, H)
        lines = [
            Series("mean over heads", attention.layers, heads.mean(1), style="dots", colour=0),
            Series("least", attention.layers, heads.min(1), style="faint", colour=0),
            Series("most", attention.layers, heads.max(1), style="faint", colour=0),
        ]
        charts.append(line_chart(lines, "layer", unit, title=title, height=HEIGHT))
    words = "<p>By layer: the mean over its heads; the faint lines are the heads with the least and the most.</p>"
    return Markup(f'{words}<div class="lab-timeline-grid">{"".join(charts)}</div>')


def scored(access: Access, ref: str | None, prompt: str) -> Markup:
    """What each head looks like, on random tokens of the prompt's that are repeated."""
    model, tokenizer = loaded(ref, access)
    return drawn(looks_like(model, tokenizer, read_prompt(model, tokenizer, prompt).ids))


def drawn(found: HeadScores) -> Markup:
    """The heads that have a name, and a map of each score by layer and head."""
    named = found.names()
    words = ", ".join(f"{head} {name} ({score:.2f})" for head, name, score in named[:TOLD])
    more = f", and {len(named) - TOLD} more" if len(named) > TOLD else ""
    said = (
        f"On random tokens that are repeated once: {words or 'no head is of a known kind'}{more}. A head is called by "
        f"what it gives {SURE:.0%} of its attention to or more. The tokens cost {found.loss_first:.2f} nats each the "
        f"first time, and {found.loss_second:.2f} the second."
    )
    maps = [
        heatmap(
            found.scores[kind], [f"layer {layer}" for layer in found.layers], _heads(found.scores[kind]),
            "mean attention", title=f"{name}: looks at {what}", top=1.0, act="head", corner="head",
            titles=[
                [f"L{layer}H{head}: {score:.3f}" for head, score in enumerate(row)]
                for layer, row in zip(found.layers, found.scores[kind], strict=True)
            ],
        )
        for kind, (name, what) in KINDS.items()
    ]  # fmt: skip
    return Markup(f'{note(said)}<div class="lab-timeline-grid">{"".join(maps)}</div>')


def chosen_head(event: gr.EventData) -> str:
    """The head that was clicked in a map: its row is its layer, as all layers are scored."""
    return f"L{int(event.row)}H{int(event.column)}"


def saved(access: Access, ref: str | None, prompt: str) -> Markup:
    """The command's own figure of all heads, with its numbers, in the workspace."""
    access.check_write()
    from interpret.attention_cli import draw_heads, numbers_of  # its figure takes a second to be imported

    attention = patterns(*loaded(ref, access), prompt)
    told = shlex.join(["python", "-m", "interpret.attention", ref, "--prompt", prompt])
    numbers = numbers_of(attention, statistics(attention.weights, attention.windows), None)
    figure, beside = save(draw_heads(attention), numbers, told, default_path(access.workspace, "attention", ref))
    root = access.workspace.root
    words = f"Saved {figure.relative_to(root)} and {beside.relative_to(root)} in the workspace."
    return Markup(note(words, "good") + code(told))


def _heads(scores: np.ndarray) -> list[str]:
    return [str(head) for head in range(scores.shape[1])]
