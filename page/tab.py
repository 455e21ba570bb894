"""What every tab does alike: mistakes become sentences in the page, and clicks in HTML reach Python.

The one file of this room that uses Gradio. Tabs import this and never each other.
"""

import functools
import inspect
import logging
from collections.abc import Callable

import gradio as gr

from page.html import CLICKS

LONGEST = 400  # characters of a sentence in the page
QUICK = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""For a handler that only reads: no part of the API, no spinner, any number at once."""
MODEL = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
"""For a handler that computes with a model: one at a time over the whole page."""
WORK = {"api_visibility": "private", "concurrency_id": "work", "concurrency_limit": 2}
"""For a handler that takes long without a model: making a corpus, training a tokenizer."""


def answer(handler: Callable) -> Callable:
    """The handler, its mistakes told in the page: one sentence for the user's, one for ours with a trace in the log."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise _told(error) from error

        return stream

    @functools.wraps(handler)
    def call(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise _told(error) from error

    return call


def html(value: str = "", **kwargs) -> gr.HTML:
    """HTML in which what has a `data-act` can be clicked: `.act(handler)` with a `gr.EventData` of its attributes."""
    return gr.HTML(value, **{"js_on_load": CLICKS, "padding": False, "apply_default_css": False, **kwargs})


def recipe_field(
    one, value: object, elem_id: str, min_width: int, left_out: dict, listed: Callable[[], list] | None = None
) -> gr.components.Component:
    """The component for a field of a recipe. Numbers are typed as text, so that what is wrong is told, not swallowed.

    Args:
        one: as `training.fields.Field`.
        left_out: the words for a field that is left empty: the `choices`, or the `placeholder`.
        listed: what may be chosen, looked up again when the field is opened; anything else can be typed.
    """
    common = {"value": value, "label": one.label, "info": one.help, "min_width": min_width, "elem_id": elem_id}
    if one.kind == "switch":
        return gr.Checkbox(**common)
    if listed is not None:
        made = gr.Dropdown(listed(), allow_custom_value=True, **common)
        made.focus(answer(lambda: gr.Dropdown(choices=listed())), None, made, **QUICK)
        return made
    if one.choices:
        return gr.Dropdown(**left_out, **common)
    return gr.Textbox(**left_out, **common, **({"lines": 4} if one.name == "others" else {"max_lines": 1}))


def folded(title: str, name: str, look: Callable, inputs: list, changed: list, seconds: float = 5.0) -> None:
    """A section that is closed at first and costs nothing while it is; open, it is looked at every few seconds.

    Args:
        name: the section's `elem_id`; its content has `-content` behind it.
        look: takes the values of `inputs` and what was shown last (None while closed); gives the HTML and what tells it
            from others, or skips both.
        changed: events after which it is looked at too.
    """
    with gr.Accordion(title, open=False, elem_id=name) as fold:
        content = html(elem_id=f"{name}-content")
    seen, timer = gr.State(None), gr.Timer(seconds, active=False)
    look, asked, shown = answer(look), [*inputs, seen], [content, seen]
    opened = fold.expand(lambda: ((), gr.Timer(active=True)), None, [seen, timer], **QUICK)
    opened.then(look, asked, shown, **QUICK)
    fold.collapse(lambda: (None, gr.Timer(active=False)), None, [seen, timer], **QUICK)
    gr.on([timer.tick, *changed], look, asked, shown, **QUICK)


def _told(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, ValueError | OSError):
        return gr.Error(_sentence(error), title="That does not work", print_exception=False)
    logging.getLogger("llm_lab").exception("a handler of the page failed")
    return gr.Error(
        f"{type(error).__name__}: {_sentence(error)} (the server's log has more)",
        title="Something broke on our side",
        print_exception=False,
    )


def _sentence(error: Exception) -> str:
    """What it says, in one line; the middle is left out where somebody's megabyte of input is quoted in it."""
    said = " ".join(str(error).split())
    return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} … {said[-LONGEST // 2 :]}"
