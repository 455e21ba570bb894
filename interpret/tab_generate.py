"""The Generate tab: a model continues a text, each token shaded by how likely it was; two side by side; a chat.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.continuation` and `interpret.chat`, which do the
work. What was written stays in the page's state, so that looking at a token's runners-up asks no model again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from data.access import Access
from hub.loaded import loaded, model_choices
from interpret.chat import Message, answer_to, caveat
from interpret.continuation import Continuation, paced, settings_from, start, take_turns
from interpret.endpoint import endpoint
from page.generation import HINT, afterwards, how, runners_up, side_by_side
from page.html import escape, note
from page.tab import MODEL, QUICK, answer, html

ANY_MODEL = "A run, run@revision, a folder of the workspace, or an id on the Hub"
SECOND_MODEL = "Same prompt, settings and seed; may be empty"
TOKENS = Path(__file__).with_name("generate.js").read_text(encoding="utf-8")

Drawn = Iterator[tuple]  # a handler's outputs, again and again


@dataclass(frozen=True)
class GenerateTab:
    """The components that the app may fill or listen to."""

    model: gr.Dropdown
    second: gr.Dropdown
    prompt: gr.Textbox


# ── the layout ──


def build(access: Access) -> GenerateTab:
    """Lay the tab out inside the caller's `gr.Tab`."""
    model = model_picker(access, "Model", ANY_MODEL, "generate-model", first=True)
    fields = setting_fields()
    with gr.Tabs():
        with gr.Tab("Continue a text", elem_id="generate-continue-tab"):
            second, prompt = build_continue(access, model, fields)
        with gr.Tab("Chat", elem_id="generate-chat-tab"):
            build_chat(access, model, fields)
    gr.api(answer(endpoint(access)), api_name="generate", concurrency_id="model", concurrency_limit=1)
    return GenerateTab(model, second, prompt)


def model_picker(access: Access, label: str, info: str, elem_id: str, first: bool = False) -> gr.Dropdown:
    """A list of the workspace's models, looked up again whenever it is opened; anything else can be typed."""

    def choices() -> list[tuple[str, str]]:
        return model_choices(access.workspace)

    found = choices()
    picker = gr.Dropdown(
        found, value=found[0][1] if first and found else None, label=label, allow_custom_value=True, elem_id=elem_id,
        info=info,
    )  # fmt: skip
    picker.focus(answer(lambda: gr.Dropdown(choices=choices())), None, picker, **QUICK)
    return picker


def setting_fields() -> list[gr.components.Component]:
    """The fields of `settings_from`, in its order. Texts: a number field shows 0 where it is empty."""

    def field(label: str, info: str, value: str = "", empty: str = "") -> gr.Textbox:
        return gr.Textbox(value, label=label, info=info, placeholder=empty, max_lines=1, min_width=105)

    with gr.Row(elem_classes="lab-generate-settings"):
        count = field("New tokens", "at most", "100")
        greedy = gr.Checkbox(label="Greedy", info="always the likeliest", min_width=105)
        temperature = field("Temperature", "above 1 bolder", "1")
        top_k = field("Top-k", "the k likeliest only", empty="all")
        top_p = field("Top-p", "this share only", empty="all")
        penalty = field("Repetition penalty", "above 1 repeats less", "1")
        seed = field("Seed", "same seed, same text", empty="a new one")
    drawing = [temperature, top_k, top_p, seed]
    greedy.change(answer(partial(enable, len(drawing))), greedy, drawing, **QUICK)
    return [count, greedy, temperature, top_k, top_p, penalty, seed]


def enable(fields: int, greedy: bool) -> list[dict]:
    """The fields that matter only where a token is drawn."""
    return [gr.update(interactive=not greedy) for _ in range(fields)]


def build_continue(access: Access, model: gr.Dropdown, fields: list) -> tuple[gr.Dropdown, gr.Textbox]:
    with gr.Row():
        prompt = gr.Textbox(
            "One day", label="Prompt", lines=5, max_lines=10, scale=3, elem_id="generate-prompt",
            placeholder="Leave it empty for the beginning of a text",
        )  # fmt: skip
        with gr.Column(scale=2, min_width=260):
            second = model_picker(access, "Compare with", SECOND_MODEL, "generate-second")
            with gr.Row():
                run = gr.Button("Generate", variant="primary", min_width=100, elem_id="generate-run")
                stop = gr.Button("Stop", min_width=100, elem_id="generate-stop")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            output = gr.HTML(js_on_load=TOKENS, padding=False, elem_id="generate-output")
        with gr.Column(scale=1, min_width=260):
            panel = gr.HTML(HINT, padding=False, elem_id="generate-runners-up")
    after = html(elem_id="generate-after")
    texts = gr.State([])
    inputs, outputs = [model, second, prompt, *fields], [output, after, panel, texts]
    asking = gr.on([run.click, prompt.submit], answer(partial(check, access)), inputs, outputs[:3], **QUICK)
    writing = asking.success(answer(partial(compare, access)), inputs, outputs, show_progress="hidden", **MODEL)
    stop.click(answer(partial(stop_texts, access)), texts, [output, after], cancels=writing, **QUICK)
    output.act(answer(choose), texts, panel, **QUICK)
    after.act(answer(keep_seed), None, fields[-1], **QUICK)
    return second, prompt


def build_chat(access: Access, model: gr.Dropdown, fields: list) -> None:
    system = gr.Textbox(label="System prompt", placeholder="What the model is told first; may be empty", max_lines=4)
    chat = gr.Chatbot(
        label="Conversation", elem_id="generate-chat", height=420, buttons=[], feedback_options=None,
        render_markdown=False, placeholder="Speak to a model that was taught to converse",
    )  # fmt: skip
    below = html(elem_id="generate-chat-how")
    message = gr.Textbox(label="Your message", lines=1, max_lines=6, elem_id="generate-chat-message")
    with gr.Row():
        send = gr.Button("Send", variant="primary", min_width=100, elem_id="generate-chat-send")
        stop = gr.Button("Stop", min_width=100, elem_id="generate-chat-stop")
        again = gr.Button("Retry", min_width=100, elem_id="generate-chat-retry")
        clear = gr.Button("Clear", min_width=100, elem_id="generate-chat-clear")
    history, texts = gr.State([]), gr.State([])
    inputs, outputs = [model, system, message, history, *fields], [message, history, chat, below, texts]
    quietly = {"show_progress": "hidden", "show_progress_on": below, **MODEL}  # a mistake's mark would cover the talk
    sending = gr.on([send.click, message.submit], answer(partial(say, access)), inputs, outputs, **quietly)
    retrying = again.click(answer(partial(retry, access)), inputs, outputs, **quietly)
    ending = {"cancels": [sending, retrying], **QUICK}
    stop.click(answer(partial(stop_chat, access)), [history, texts], [history, chat, below], **ending)
    gr.on([clear.click, chat.clear], answer(clear_chat), texts, outputs[1:], **ending)


# ── what the handlers do ──


def check(access: Access, first: str | None, second: str | None, _prompt: str, *fields) -> tuple:
    """Mistakes told at once, without waiting for a model that others may be using: output, after, panel."""
    settings_from(*fields)
    return note(f"Waiting for {' and '.join(chosen(access, first, second))} …"), "", ""


def chosen(access: Access, first: str | None, second: str | None) -> list[str]:
    """The one or two models that were named."""
    return [access.reference(first), *([access.reference(second)] if second and second.strip() else [])]


def compare(access: Access, first: str | None, second: str | None, prompt: str, *fields) -> Drawn:
    """One or two models continue the prompt with the same settings and seed: output, after, panel, texts."""
    settings = settings_from(*fields)
    try:
        started = [start(ref, *loaded(ref, access), prompt, settings) for ref in chosen(access, first, second)]
        texts = [text for text, _ in started]
        yield side_by_side(texts), "", HINT, texts
        for _ in paced(take_turns(started), texts):
            yield side_by_side(texts), gr.skip(), gr.skip(), gr.skip()
    except Exception:
        yield "", "", "", []  # nothing that looks as if it went on
        raise
    yield side_by_side(texts), outcome(texts, access), gr.skip(), gr.skip()


def stop_texts(access: Access, texts: list[Continuation]) -> tuple:
    """What is written by now, and no more: output, after."""
    end(texts)
    return side_by_side(texts), outcome(texts, access)


def outcome(texts: list[Continuation], access: Access) -> str:
    """What stands below finished texts: among it, the commands that write them."""
    commands = [text.settings.command(text.ref, text.prompt, access.workspace) for text in texts]
    return afterwards(texts, commands) if texts else ""


def end(texts: list[Continuation]) -> None:
    """Whoever still writes one of them sees it before the next token, wherever the page's cancelling reaches."""
    for text in texts:
        text.stop = text.stop or "stopped"


def choose(texts: list[Continuation], event: gr.EventData) -> str:
    """The panel for the token that was clicked."""
    if not texts:
        raise ValueError("the server was started anew and does not have this text any more: generate it again")
    return runners_up(texts[int(event.text)].tokens[int(event.token)])


def keep_seed(event: gr.EventData) -> str:
    return event.seed


def say(access: Access, ref: str | None, system: str, message: str, history: list[Message], *fields) -> Drawn:
    """The model's answer to a new message: message box, history, chat, below, texts."""
    if not message.strip():
        raise ValueError("the message is empty: write something to the model first")
    asked, box = [*history, {"role": "user", "content": message}], ""
    try:
        for outputs in converse(access, ref, system, asked, *fields):
            yield box, *outputs
            box = gr.skip()  # what is typed meanwhile stays
    except Exception:
        yield message, history, shown(history), "", []  # to be sent again
        raise


def retry(access: Access, ref: str | None, system: str, _message: str, history: list[Message], *fields) -> Drawn:
    """Another answer to the last message."""
    asked = unanswered(history)
    if not asked:
        raise ValueError("there is no message to answer again: send one first")
    try:
        for outputs in converse(access, ref, system, asked, *fields):
            yield gr.skip(), *outputs
    except Exception:
        yield gr.skip(), history, shown(history), "", []
        raise


def converse(access: Access, ref: str | None, system: str, asked: list[Message], *fields) -> Drawn:
    """The conversation as the answer to it grows: history, chat, below, texts."""
    settings, ref = settings_from(*fields), access.reference(ref)
    yield asked, shown(asked), note(f"Opening {ref} …"), []
    model, tokenizer = loaded(ref, access)
    told = [{"role": "system", "content": system}] if system.strip() else []
    text, tokens = answer_to(ref, model, tokenizer, [*told, *asked], settings)
    hint = hint_about(ref, access)
    yield asked, shown(asked), how(text) + hint, [text]
    for _ in paced(take_turns([(text, tokens)]), [text]):
        yield *answered(asked, text, hint), gr.skip()
    yield *answered(asked, text, hint), gr.skip()


def stop_chat(access: Access, history: list[Message], texts: list[Continuation]) -> tuple:
    """The answer as far as it came: history, chat, below."""
    end(texts)
    if not texts:
        return history, shown(history), ""
    return answered(unanswered(history), texts[0], hint_about(texts[0].ref, access))


def clear_chat(texts: list[Continuation]) -> tuple:
    """Nothing said: history, chat, below, texts."""
    end(texts)
    return [], [], "", []


def answered(asked: list[Message], text: Continuation, hint: str) -> tuple:
    """The conversation with the answer as far as it is: history, chat, below."""
    said = [*asked, {"role": "assistant", "content": text.text}] if text.tokens else asked
    return said, shown(said), how(text) + hint


def hint_about(ref: str, access: Access) -> str:
    warning = caveat(ref, access.workspace)
    return note(warning, "warning") if warning else ""


def unanswered(history: list[Message]) -> list[Message]:
    return history[:-1] if history and history[-1]["role"] == "assistant" else history


def shown(history: list[Message]) -> list[Message]:
    """What was said as plain text: the chat takes HTML as such, and a picture in it would be asked of another host."""
    return [{**message, "content": str(escape(message["content"]))} for message in history]
