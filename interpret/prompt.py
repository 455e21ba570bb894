"""A prompt as a view reads it: its tokens, each spelled, no more than fit, and what was cut off.

Of ours here `interpret.writing`.
"""

from dataclasses import dataclass

from interpret.writing import positions_left, prompt_ids, spell

MAX_TOKENS = 256  # what a picture can show; of a 32 × 32 heads model the attention weights are then 268 MB
MAX_CHARACTERS = 100_000  # far more than MAX_TOKENS tokens spell; more would only keep the tokenizer busy


@dataclass(frozen=True)
class Prompt:
    """Token ids (T,), each token's own spelling, and what was cut off, as a sentence, "" for nothing."""

    ids: list[int]
    tokens: list[str]
    note: str


def read_prompt(model, tokenizer, text: str, max_tokens: int = MAX_TOKENS) -> Prompt:
    """The first tokens of `text`, behind the token that begins every text where there is one.

    Raises ValueError for a prompt of fewer than two tokens, of which there is nothing to see.
    """
    if max_tokens < 2:
        raise ValueError(f"max_tokens={max_tokens} must be at least 2: the first token can only look at itself")
    if not text.strip():
        raise ValueError("the prompt is empty: write a few words to look at")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the prompt has {len(text):,} characters: shorten it to {MAX_CHARACTERS:,} at most")
    ids, note = prompt_ids(model, tokenizer, text), ""
    if len(ids) < 2:
        raise ValueError(f"the prompt {text!r} is a single token, which can only look at itself: write more")
    positions = positions_left(model, 0)
    kept = max_tokens if positions is None else min(max_tokens, positions)
    if len(ids) > kept:
        why = "" if kept == max_tokens else ", which is all the positions that the model has"
        note = f"The prompt has {len(ids):,} tokens: only the first {kept:,} are read{why}."
    return Prompt(ids[:kept], [spell(tokenizer, i) for i in ids[:kept]], note)
