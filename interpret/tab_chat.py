"""The Generate tab's chat: a conversation with one model, or the same one with two side by side.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.chat` and `interpret.continuation`, which do the
work. Each of two models answers by itself and goes on from its own answers; the messages to them are the same.
"""

from collections.abc import Iterator
from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import chosen, loaded
from interpret.chat import Message, answer_to, caveat, one_template
from interpret.continuation import Continuation, end, paced, settings_from, take_turns
from page.generation import beside, how
from page.html import escape, note
from page.tab import MODEL, QUICK, answer, html

Talk = list[Message]
Drawn = Iterator[tuple]  # a handler's outputs, again and again
SIDES = 2


def build(access: Access, model: gr.Dropdown, second: gr.Dropdown, fields: list) -> None:
    """Lay the chat out inside the caller's tab.

    Args:
        fields: of `settings_from`, in its order.
    """
    system = gr.Textbox(label="System prompt", placeholder="What the model is told first; may be empty", max_lines=4)
    with gr.Row():
        with gr.Column(min_width=300):
            first_chat = chatbot("generate-chat", model.value)
        with gr.Column(min_width=300, visible=bool(second.value)) as beside_it:
            second_chat = chatbot("generate-chat-second", second.value)
    below = html(elem_id="generate-chat-how")
    message = gr.Textbox(label="Your message", lines=1, max_lines=6, elem_id="generate-chat-message")
    with gr.Row():
        send = gr.Button("Send", variant="primary", min_width=100, elem_id="generate-chat-send")
        stop = gr.Button("Stop", min_width=100, elem_id="generate-chat-stop")
        again = gr.Button("Retry", min_width=100, elem_id="generate-chat-retry")
        clear = gr.Button("Clear", min_width=100, elem_id="generate-chat-clear")
    talks, texts = gr.State([]), gr.State([])
    chats = [first_chat, second_chat]
    inputs, outputs = [model, second, system, message, talks, *fields], [message, talks, *chats, below, texts]
    quietly = {"show_progress": "hidden", "show_progress_on": below, **MODEL}  # a mistake's mark would cover the talk
    sending = gr.on([send.click, message.submit], answer(partial(say, access)), inputs, outputs, **quietly)
    retrying = again.click(answer(partial(retry, access)), inputs, outputs, **quietly)
    ending = {"cancels": [sending, retrying], **QUICK}
    stop.click(answer(partial(stop_chat, access)), [talks, texts], [talks, *chats, below], **ending)
    gr.on([clear.click, *(chat.clear for chat in chats)], answer(clear_chat), texts, outputs[1:], **ending)
    gr.on([model.change, second.change], named, [model, second], [*chats, beside_it], **QUICK)


def chatbot(elem_id: str, label: str | None) -> gr.Chatbot:
    return gr.Chatbot(
        label=label or "Conversation", elem_id=elem_id, height=420, buttons=[], feedback_options=None,
        render_markdown=False, placeholder="Speak to a model that was taught to converse",
    )  # fmt: skip


def named(first: str | None, second: str | None) -> tuple:
    """Each conversation under its model's name; the second is there where there is a second model."""
    there = bool(second and second.strip())
    return gr.Chatbot(label=first or "Conversation"), gr.Chatbot(label=second or ""), gr.Column(visible=there)


def say(
    access: Access, first: str | None, second: str | None, system: str, message: str, talks: list[Talk], *fields
) -> Drawn:
    """The models' answers to a new message: message box, conversations, both as shown, below, texts."""
    if not message.strip():
        raise ValueError("the message is empty: write something to the model first")
    refs, box = chosen(access, first, second), ""
    asked = [[*talk, {"role": "user", "content": message}] for talk in for_each(refs, talks)]
    try:
        for outputs in converse(access, refs, system, asked, *fields):
            yield box, *outputs
            box = gr.skip()  # what is typed meanwhile stays
    except Exception:
        yield message, talks, *shown(talks), "", []  # to be sent again
        raise


def retry(
    access: Access, first: str | None, second: str | None, system: str, _message: str, talks: list[Talk], *fields
) -> Drawn:
    """Other answers to the last message."""
    refs = chosen(access, first, second)
    asked = [unanswered(talk) for talk in for_each(refs, talks)]
    if not all(asked):
        raise ValueError("there is no message to answer again: send one first")
    try:
        for outputs in converse(access, refs, system, asked, *fields):
            yield gr.skip(), *outputs
    except Exception:
        yield gr.skip(), talks, *shown(talks), "", []
        raise


def for_each(refs: list[str], talks: list[Talk]) -> list[Talk]:
    """A conversation for each model: one that joins later goes on from the first's."""
    first = talks[0] if talks else []
    return [*talks, *[first] * SIDES][: len(refs)]


def converse(access: Access, refs: list[str], system: str, asked: list[Talk], *fields) -> Drawn:
    """The conversations as the answers to them grow: conversations, both as shown, below, texts."""
    settings = settings_from(*fields)
    yield asked, *shown(asked), note(f"Opening {' and '.join(refs)} …"), []
    models, tokenizers = zip(*(loaded(ref, access) for ref in refs), strict=True)
    told = [{"role": "system", "content": system}] if system.strip() else []
    sides = zip(refs, models, one_template(tokenizers), asked, strict=True)
    started = [answer_to(ref, model, words, [*told, *talk], settings) for ref, model, words, talk in sides]
    texts = [text for text, _ in started]
    hints = [hint_about(text.ref, access) for text in texts]
    yield asked, *shown(asked), outcome(texts, hints), texts
    for _ in paced(take_turns(started), texts):
        yield *answered(asked, texts, hints), gr.skip()
    yield *answered(asked, texts, hints), gr.skip()


def stop_chat(access: Access, talks: list[Talk], texts: list[Continuation]) -> tuple:
    """The answers as far as they came: conversations, both as shown, below."""
    end(texts)
    if not texts:
        return talks, *shown(talks), ""
    return answered([unanswered(talk) for talk in talks], texts, [hint_about(text.ref, access) for text in texts])


def clear_chat(texts: list[Continuation]) -> tuple:
    """Nothing said: conversations, both as shown, below, texts."""
    end(texts)
    return [], *shown([]), "", []


def answered(asked: list[Talk], texts: list[Continuation], hints: list[str]) -> tuple:
    """The conversations with the answers as far as they are: conversations, both as shown, below."""
    said = [
        [*talk, {"role": "assistant", "content": text.text}] if text.tokens else talk
        for talk, text in zip(asked, texts, strict=True)
    ]
    return said, *shown(said), outcome(texts, hints)


def outcome(texts: list[Continuation], hints: list[str]) -> str:
    return beside([how(text) + hint for text, hint in zip(texts, hints, strict=True)])


def hint_about(ref: str, access: Access) -> str:
    warning = caveat(ref, access.workspace)
    return note(warning, "warning") if warning else ""


def unanswered(talk: Talk) -> Talk:
    return talk[:-1] if talk and talk[-1]["role"] == "assistant" else talk


def shown(talks: list[Talk]) -> list[Talk]:
    """What was said in each as plain text: a chat takes HTML as such, and a picture in it would be asked of others."""
    drawn = [[{**message, "content": str(escape(message["content"]))} for message in talk] for talk in talks]
    return [*drawn, *[[]] * SIDES][:SIDES]
