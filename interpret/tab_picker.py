"""What all views on the page look at: a model and a prompt, chosen once.

May import `page`, `hub`, `data` and Gradio.
"""

from typing import NamedTuple

import gradio as gr

from data.access import Access
from hub.loaded import model_choices
from page.tab import QUICK, answer

EXAMPLE = "One day Tom and Lily went to the park. Tom had a red ball, and Lily wanted to play with it."


class Picked(NamedTuple):
    """The components whose values every view is given first."""

    model: gr.Dropdown
    prompt: gr.Textbox


def build(access: Access) -> Picked:
    """Lay both out inside the caller's tab."""

    def choices() -> list[tuple[str, str]]:
        return model_choices(access.workspace)

    found = choices()
    with gr.Row():
        model = gr.Dropdown(
            found, value=found[0][1] if found else None, label="Model", allow_custom_value=True, scale=2,
            min_width=280, info="A run, run@revision, a folder, or an id on the Hub", elem_id="inspect-model",
        )  # fmt: skip
        prompt = gr.Textbox(
            EXAMPLE, label="Prompt", info="The text that is read", lines=2, max_lines=6, scale=5,
            min_width=320, elem_id="inspect-prompt",
        )  # fmt: skip
    model.focus(answer(lambda: gr.Dropdown(choices=choices())), None, model, **QUICK)
    return Picked(model, prompt)
