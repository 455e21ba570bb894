"""The Generate tab: a model continues a text, each token shaded by how likely it was; two side by side; a chat.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.continuation`, which does the work, and the chat,
a part of this tab in its own file. What was written stays in the page's state, so that looking at a token's runners-up
asks no model again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from data.access import Access
from hub.loaded import base_of, chosen, loaded, model_choices
from hub.overview import find
from interpret import tab_chat
from interpret.continuation import Continuation, end, paced, settings_from, start, take_turns
from interpret.endpoint import endpoint
from page.generation import HINT, afterwards, runners_up, side_by_side
from page.html import note
from page.tab import MODEL, QUICK, answer, html

ANY_MODEL = "A run, run@revision, a folder of the workspace, or an id on the Hub"
SECOND_MODEL = "Same prompt, settings and seed; may be empty. Beside a fine-tuned run its base"
CHAT_TEMPLATE = "chat_template.jinja"  # beside a tokenizer that knows how to converse
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
    newest = next((ref for _, ref in model_choices(access.workspace)), None)
    suggested = base_of(newest, access)
    with gr.Row():
        model = model_picker(access, newest, "Model", ANY_MODEL, "generate-model")
        second = model_picker(access, suggested, "Compare with", SECOND_MODEL, "generate-second")
    fields = setting_fields()
    with gr.Tabs() as ways:
        with gr.Tab("Continue a text", id="continue", elem_id="generate-continue-tab"):
            prompt = build_continue(access, model, second, fields)
        with gr.Tab("Chat", id="chat", elem_id="generate-chat-tab"):
            tab_chat.build(access, model, second, fields)
    offered = gr.State(suggested)
    offer = answer(partial(beside_its_base, access))
    model.change(offer, [model, second, offered], [second, offered, ways], **QUICK)
    gr.api(answer(endpoint(access)), api_name="generate", concurrency_id="model", concurrency_limit=1)
    return GenerateTab(model, second, prompt)


def model_picker(access: Access, value: str | None, label: str, info: str, elem_id: str) -> gr.Dropdown:
    """A list of the workspace's models, looked up again whenever it is opened; anything else can be typed."""

    def choices() -> list[tuple[str, str]]:
        return model_choices(access.workspace)

    picker = gr.Dropdown(
        choices(), value=value, label=label, allow_custom_value=True, elem_id=elem_id, min_width=280, info=info
    )
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


def build_continue(access: Access, model: gr.Dropdown, second: gr.Dropdown, fields: list) -> gr.Textbox:
    with gr.Row():
        prompt = gr.Textbox(
            "One day", label="Prompt", lines=5, max_lines=10, scale=4, elem_id="generate-prompt",
            placeholder="Leave it empty for the beginning of a text",
        )  # fmt: skip
        with gr.Column(scale=1, min_width=160):
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
    return prompt


# ── what the handlers do ──


def beside_its_base(access: Access, first: str | None, second: str | None, offered: str | None) -> tuple:
    """A fine-tuned run is compared with its base, unless somebody chose another: second, what was offered, the way.

    The way is the chat where the run's tokenizer knows how to converse.
    """
    base, free = base_of(first, access), not second or second == offered
    if not base:
        return None if free and offered else gr.skip(), None, gr.skip()
    converses = (find(access, first.partition("@")[0]).path / CHAT_TEMPLATE).is_file()
    return base if free else gr.skip(), base, gr.Tabs(selected="chat") if converses else gr.skip()


def check(access: Access, first: str | None, second: str | None, _prompt: str, *fields) -> tuple:
    """Mistakes told at once, without waiting for a model that others may be using: output, after, panel."""
    settings_from(*fields)
    return note(f"Waiting for {' and '.join(chosen(access, first, second))} …"), "", ""


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


def choose(texts: list[Continuation], event: gr.EventData) -> str:
    """The panel for the token that was clicked."""
    if not texts:
        raise ValueError("the server was started anew and does not have this text any more: generate it again")
    return runners_up(texts[int(event.text)].tokens[int(event.token)])


def keep_seed(event: gr.EventData) -> str:
    return event.seed
