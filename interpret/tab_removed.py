""" "What if this is removed", beside a view: the loss and the next token with and without a part of the model.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.ablation`, the picker's components and the command
that does the same.
"""

from functools import partial
from typing import NamedTuple

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret.ablation import HOW, Effect, effect, parse_target
from interpret.tab_figure import command
from interpret.tab_picker import Picked
from page.generation import quote
from page.html import Markup, code, note, table
from page.tab import MODEL, answer, html


class Panel(NamedTuple):
    """How a part is removed, and where it is told what came of it."""

    how: gr.Radio
    reference: gr.Textbox
    shown: gr.HTML


def build(access: Access, picked: Picked, target: gr.Textbox) -> Panel:
    """Lay the panel out inside the caller's view, which fills `target` when a part of the model is clicked."""
    with gr.Row():
        how = gr.Radio(
            list(HOW), value="zero", label="Removed by", min_width=300,
            info="zero; its mean over the other text; or what it wrote there",
        )  # fmt: skip
        reference = gr.Textbox("", label="Other text", info="for mean and resample", min_width=220, scale=2)
    with gr.Row():
        remove = gr.Button("What if this is removed", min_width=240, scale=0)
    shown = html()
    asked = [*picked, target, how, reference]
    gr.on([remove.click, target.submit], answer(partial(removed, access)), asked, shown, **MODEL)
    return Panel(how, reference, shown)


def removed(access: Access, ref: str | None, prompt: str, target: str, how: str, reference: str) -> Markup:
    """One or several parts, separated by blanks or commas."""
    names = (target or "").replace(",", " ").split()
    if not names:
        raise ValueError("name a part of the model, such as L0H1, L0.mlp or L0, or click one in the view above")
    found = effect(*loaded(ref, access), prompt, [parse_target(name) for name in names], how, reference)
    flags = {"prompt": prompt, "remove": [str(part) for part in found.removed], **how_flags(how, reference)}
    return Markup(draw(found) + code(command("ablate", access.reference(ref), flags, access.workspace)))


def how_flags(how: str, reference: str) -> dict[str, str]:
    """Flags of the command; nothing is said of the default, and a text that takes no part is left out."""
    return {} if how == "zero" else {"how": how, "reference": reference}


def draw(found: Effect) -> Markup:
    """The loss, and the likeliest next tokens, with and without."""
    change = found.loss_after - found.loss_before
    parts = ", ".join(map(str, found.removed))
    said = note(
        f"Without {parts} the prompt costs {found.loss_after:.4f} nats per token instead of {found.loss_before:.4f} "
        f"({change:+.4f}); the next token's distribution moves by {found.kl:.4f} nats (KL). {found.read.note}".rstrip()
    )
    rows = [
        (quote(token), f"{p:.1%}", quote(other), f"{q:.1%}")
        for (token, p), (other, q) in zip(found.likeliest_before, found.likeliest_after, strict=True)
    ]
    return Markup(said + table(["next token, with it", "", "next token, without", ""], rows))
