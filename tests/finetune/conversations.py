"""Conversations, and how a test writes down which of their tokens are scored: answers between « and »."""

import numpy as np

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 * 3?"},
    {"role": "assistant", "content": "6"},
    {"role": "user", "content": "And the capital of France?"},
    {"role": "assistant", "content": "Paris,\nthe city of light."},
]
CALL = {"type": "function", "function": {"name": "multiply", "arguments": {"a": 2, "b": 3}}}
TOOL = {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object", "properties": {}}}}
WITH_TOOLS = [
    {"role": "user", "content": "What is 2 * 3?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "6"},
    {"role": "tool", "content": "six"},
    {"role": "assistant", "content": "The answer is 6."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]
THOUGHT = [
    {"role": "user", "content": "2 * 3?"},
    {"role": "assistant", "content": "6.", "reasoning_content": "two and two and two"},
    {"role": "user", "content": "2 * 4?"},
    {"role": "assistant", "content": "8.", "reasoning_content": "and two more"},
]


def split_marks(marked: str) -> tuple[str, np.ndarray]:
    """The text without its « and », and for each of its characters whether it stood between them."""
    text, scored, inside = [], [], False
    for character in marked:
        if character in "«»":
            inside = character == "«"
        else:
            text.append(character)
            scored.append(inside)
    return "".join(text), np.array(scored)


def check(rendered, tokenizer, marked: str) -> None:
    """Token by token: that the ids are the whole text's, and each is scored as the text it stands for is marked."""
    text, inside = split_marks(marked)
    assert rendered.text == text
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert rendered.ids.tolist() == whole["input_ids"] and rendered.ids.dtype == np.int32
    assert len(rendered.pieces) == len(rendered.scored) == len(rendered.ids) and rendered.scored.dtype == bool
    for i, (begin, end) in enumerate(whole["offset_mapping"]):
        assert len(set(inside[begin:end].tolist())) <= 1, f"token {i} lies on a border"
        assert rendered.scored[i] == inside[begin], (i, text[begin:end], text[max(0, begin - 40) : begin])
