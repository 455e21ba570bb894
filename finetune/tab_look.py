"""The Fine-tune tab's look before training: examples as tokens, what is learnt of them, steps, and memory.

May import `page`, `hub`, `data` and Gradio. The work is `finetune.preview`'s, which opens tokenizer and configuration
alone. Once asked for, the look follows the form: what is seen is always of what the fields hold.
"""

from functools import partial

import gradio as gr

from data.access import Access
from data.console import one_line
from finetune import draft
from finetune.form import values_to_parts
from finetune.preview import preview
from finetune.tab_form import Form, named
from page import examples as draw
from page.html import Markup, note
from page.tab import QUICK, WORK, answer, html


def build(access: Access, form: Form) -> None:
    """Lay the part out: the button and the figures below Start, the examples below the form."""
    with form.beside:
        press = gr.Button("Look before you train", elem_id="tune-look")
        summary = html(elem_id="tune-look-summary")
    tokens, asked = html(elem_id="tune-look-examples"), gr.State(False)
    values, shown = list(form.fields.values()), [summary, tokens]
    look = answer(partial(looked, access))
    wanted = press.click(lambda: True, None, asked, **QUICK)
    wanted.success(look, [asked, *values], shown, show_progress_on=summary, **WORK)
    changes = [field.change for field in values]
    quietly = {**WORK, "show_progress": "hidden"}
    gr.on(changes, look, [asked, *values], shown, trigger_mode="always_last", **quietly)


def looked(access: Access, asked: bool, *values: object) -> tuple:
    """(the figures, the examples) of what the form holds; a mistake is told where the figures would be.

    Both are skipped until somebody asked for them.
    """
    if not asked:
        return gr.skip(), gr.skip()
    try:
        _, recipe = draft.complete(access, values_to_parts(named(values)))
        draft.check_there(access, recipe.data.source)
        found = preview(recipe, access.workspace)
    except (ValueError, OSError) as error:
        return note(one_line(error), "error"), Markup()
    return draw.summary(found), draw.examples(found)
