""" "What if this is removed", beside a view: the loss and the next token with and without a part of the model.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.ablation` and the picker's components.
"""

from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret.ablation import HOW, Effect, effect, parse_target
from interpret.tab_picker import Picked
from page.html import Markup, note, table
from page.tab import MODEL, answer, html


def build(access: Access, picked: Picked, target: gr.Textbox) -> None:
    """Lay the panel out inside the caller's view, which fills `target` when a part of the model is clicked."""
    with gr.Row(equal_height=True):
        how = gr.Radio(
            list(HOW),
            value="zero",
            label="Removed by",
            info="zero; its mean over the other text; or what it wrote there",
        )
        reference = gr.Textbox("", label="Other text", info="for mean and resample", min_width=220, scale=2)
        remove = gr.Button("What if this is removed", min_width=180)
    shown = html()
    asked = [*picked, target, how, reference]
    gr.on([remove.click, target.submit], answer(partial(removed, access)), asked, shown, **MODEL)


def removed(access: Access, ref: str | None, prompt: str, target: str, how: str, reference: str) -> Markup:
    """One or several parts, separated by blanks or commas."""
    names = (target or "").replace(",", " ").split()
    if not names:
        raise ValueError("name a part of the model, such as L0H1, L0.mlp or L0, or click one in the view above")
    return draw(effect(*loaded(ref, access), prompt, [parse_target(name) for name in names], how, reference))


def draw(found: Effect) -> Markup:
    """The loss, and the likeliest next tokens, with and without."""
    change = found.loss_after - found.loss_before
    parts = ", ".join(map(str, found.removed))
    said = note(
        f"Without {parts} the prompt costs {found.loss_after:.4f} nats per token instead of {found.loss_before:.4f} "
        f"({change:+.4f}); the next token's distribution moves by {found.kl:.4f} nats (KL)."
    )
    rows = [
        (f"{token!r}", f"{p:.1%}", f"{other!r}", f"{q:.1%}")
        for (token, p), (other, q) in zip(found.likeliest_before, found.likeliest_after, strict=True)
    ]
    return Markup(said + table(["next token, with it", "", "next token, without", ""], rows))
