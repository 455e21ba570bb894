"""A conversation as the tokens a chat model reads, and where its turn ends.

May import `hub`; of ours here `interpret.continuation`. The model's own chat template writes the turns out; nothing of
any model's format is known here.
"""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import TemplateError

from data.console import one_line
from data.workspace import Workspace
from interpret.continuation import Continuation, Settings, check_length, start
from interpret.writing import Token

Message = dict[str, str]  # {"role": "system", "user" or "assistant", "content": text}
MARK = "\N{WHITE LARGE SQUARE}answer\N{WHITE LARGE SQUARE}"  # stands where an answer would, to see what follows one


def answer_to(
    ref: str, model, tokenizer, messages: list[Message], settings: Settings
) -> tuple[Continuation, Iterator[Token]]:
    """The model's next turn, not begun yet, and its tokens.

    Raises ValueError for a model without a chat template, for a conversation that the template refuses, for one longer
    than the model reads, and for tokens that the model does not know.
    """
    check_length("".join(message["content"] for message in messages))
    prompt = written_out(tokenizer, messages, answer_next=True)
    # the template writes the special tokens itself, the one that begins a text too where there is one
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    known = model.get_input_embeddings().weight.shape[0]
    if max(ids, default=0) >= known:
        raise ValueError(f"{ref} knows {known:,} tokens, and the chat template writes one that is not among them")
    return start(ref, model, tokenizer, prompt, settings, ids=ids, ends=turn_ends(tokenizer))


def written_out(tokenizer, messages: list[Message], answer_next: bool) -> str:
    """The turns as the template writes them, ready for the model's answer where `answer_next`."""
    if not tokenizer.chat_template:
        raise ValueError(
            "this model has no chat template, so nothing says how it is to be spoken to: choose a chat model, or let "
            "this one continue a text"
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    except (TemplateError, ValueError) as error:
        raise ValueError(f"this model's chat template refuses the conversation: {one_line(error)[:200]}") from error


def one_template(tokenizers: list) -> list:
    """The tokenizers for models that are spoken to side by side.

    One without a chat template makes way for another that has one and gives all of its tokens the same ids: an
    adapter's, beside the base that was never spoken to.
    """
    with_template = [tokenizer for tokenizer in tokenizers if tokenizer.chat_template]

    def voice(tokenizer):
        own = tokenizer.get_vocab().items()
        fitting = (other for other in with_template if own <= other.get_vocab().items())
        return tokenizer if tokenizer.chat_template else next(fitting, tokenizer)

    return [voice(tokenizer) for tokenizer in tokenizers]


def turn_ends(tokenizer) -> set[int]:
    """The special token that the template puts behind an answer; none where it puts none.

    A model's configuration often names only what ends a whole text. What the template writes after an answer is what
    the model was taught to write there.
    """
    exchange = [{"role": "user", "content": "."}, {"role": "assistant", "content": MARK}]
    behind = written_out(tokenizer, exchange, answer_next=False).rpartition(MARK)[2]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return set(ids[:1]) & special


def caveat(ref: str, workspace: Workspace) -> str:
    """A sentence about a run that carries a chat template and was never taught to converse; "" for any other model."""
    from hub.models import resolve  # takes seconds: transformers
    from hub.runs import Run

    place = resolve(ref, workspace)
    if not isinstance(place, Path):  # of the Hub
        return ""
    folders = (place, *place.parents[:2])  # a checkpoint is a model by itself, two folders below its run
    run = next((Run(folder) for folder in folders if (folder / "run.json").is_file()), None)
    if run is None or run.info()["kind"] != "pretrain":
        return ""
    return (
        "This model was pretrained on plain text only. Its tokenizer has the marks of a conversation, but nobody has "
        "taught it to converse yet: expect it to go on writing, not to answer."
    )
