"""One row of a source becomes an example: a conversation of messages, or a text.

Standard library, and late `trl` for ShareGPT's names; nothing of ours. FORMATS is the table of the layouts that are
known, told apart by their keys; a new one is one entry. Whatever a row came as, an example is a plain dict:
`{"messages": [{"role", "content", …}], "tools": […]?}` or `{"text": …}`. A mistake is a ValueError that says what is
wrong; whoever reads the rows puts before it where.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

ROLES = ("system", "user", "assistant", "tool")
# what published sets of conversations call those who speak in them
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "developer": "system"}


@dataclass(frozen=True)
class Format:
    about: str
    keys: tuple[tuple[str, ...], ...]
    """A row is of this format when it has one key of each group."""
    convert: Callable[[dict], dict]


def of_messages(row: dict) -> dict:
    return with_tools(row, [as_message(message) for message in as_list(row["messages"], "messages")])


def of_sharegpt(row: dict) -> dict:
    from trl.data_utils import maybe_convert_to_chatml  # seconds to import

    turns = as_list(row["conversations"], "conversations")
    turns = [dict(turn) if isinstance(turn, dict) else turn for turn in turns]  # it renames keys in place
    messages = maybe_convert_to_chatml({"conversations": turns})["messages"]
    if "system" in row and isinstance(row["system"], str) and row["system"].strip():
        messages = [{"role": "system", "content": row["system"]}, *messages]
    return with_tools(row, [as_message(message) for message in messages])


def of_prompt(row: dict) -> dict:
    """`prompt` and `completion` as texts, or both as messages."""
    if isinstance(row["prompt"], list):
        return of_messages({**row, "messages": row["prompt"] + as_list(row["completion"], "completion")})
    return {"messages": exchange(text_of(row, "prompt"), text_of(row, "completion"))}


def of_instruction(row: dict) -> dict:
    """As Alpaca has them, with what the instruction is about (`input`, `context`) behind a blank line."""
    about = next((row[key] for key in ("input", "context") if row.get(key)), "")
    if not isinstance(about, str):
        raise ValueError(f"the input of the instruction should be text, not {kind(about)}")
    asked = text_of(row, "instruction") + (f"\n\n{about}" if about.strip() else "")
    messages = exchange(asked, text_of(row, "output" if "output" in row else "response"))
    return {"messages": messages}


def of_question(row: dict) -> dict:
    return {"messages": exchange(text_of(row, "question"), text_of(row, "answer"))}


def of_text(row: dict) -> dict:
    text = text_of(row, "text")
    if not text.strip():
        raise ValueError("the text is empty")
    return {"text": text}


# The first that fits: Alpaca's rows hold the whole exchange as `text` once more.
FORMATS: dict[str, Format] = {
    "messages": Format('{"messages": [{"role": …, "content": …}]}', (("messages",),), of_messages),
    "conversations": Format('{"conversations": [{"from": …, "value": …}]}', (("conversations",),), of_sharegpt),
    "instruction": Format(
        '{"instruction": …, "input": …, "output": …}', (("instruction",), ("output", "response")), of_instruction
    ),
    "prompt": Format('{"prompt": …, "completion": …}', (("prompt",), ("completion",)), of_prompt),
    "question": Format('{"question": …, "answer": …}', (("question",), ("answer",)), of_question),
    "text": Format('{"text": …}', (("text",),), of_text),
}


def format_of(row: object) -> str:
    """The name of a row's format. Raises ValueError for one that is of none."""
    if not isinstance(row, dict):
        raise ValueError(f"an example should be a JSON object such as {FORMATS['messages'].about}, not {kind(row)}")
    for name, one in FORMATS.items():
        if all(any(row.get(key) is not None for key in group) for group in one.keys):
            return name
    keys = ", ".join(map(repr, row)) or "nothing"
    raise ValueError(f"it holds {keys}, which is no format known: {'; '.join(one.about for one in FORMATS.values())}")


def read_example(row: dict, name: str, system: str | None = None) -> dict:
    """A row of the format `name` as an example, checked.

    Args:
        system: is put before a conversation that has no system message.
    """
    example = FORMATS[name].convert(row)
    if "messages" in example:
        if system and example["messages"] and example["messages"][0]["role"] != "system":
            example["messages"].insert(0, {"role": "system", "content": system})
        check_order(example["messages"])
    return example


def where(example: dict) -> str:
    """Where an example was read, as a sentence has it: `chat.jsonl, line 12`."""
    source = example.get("source")
    if not source:
        return "this example"
    name, _, number = source.rpartition(":")
    return f"{name}, {'line' if name.endswith('.jsonl') else 'row'} {number}"


def exchange(asked: str, answered: str) -> list[dict]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def as_message(message: object) -> dict:
    """A message with the role's usual name and text as its content, nothing in it that says None."""
    if not isinstance(message, dict) or "role" not in message:
        raise ValueError(f'a message should be an object such as {{"role": "user", "content": …}}, not {kind(message)}')
    role = SPEAKERS.get(message["role"], message["role"]) if isinstance(message["role"], str) else message["role"]
    if role not in ROLES:
        known = ", ".join((*ROLES, *SPEAKERS))
        raise ValueError(f"unknown role {message['role']!r}; known: {known}")
    rest = {key: value for key, value in message.items() if value is not None and key not in ("role", "content")}
    if calls := rest.pop("tool_calls", None):
        rest["tool_calls"] = [as_tool_call(call) for call in as_list(calls, "tool_calls")]
    return {"role": role, "content": as_content(message.get("content"), role, bool(calls)), **rest}


def as_content(content: object, role: str, calls: bool) -> str:
    if isinstance(content, list):  # parts of a message; pictures and sounds are nothing that this lab trains on
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise ValueError(f"the content of the {role}'s message holds a part that is not text")
        content = "".join(part["text"] for part in content)
    if content is None and calls:  # as OpenAI writes a message that only calls tools
        content = ""
    if not isinstance(content, str):
        raise ValueError(f"the content of the {role}'s message should be text, not {kind(content)}")
    if role == "assistant" and not content.strip() and not calls:
        raise ValueError("the answer is empty: an assistant message has neither content nor tool_calls")
    return content


def as_tool_call(call: object) -> dict:
    """A call with its arguments as an object: templates write them out as JSON, and a string would be quoted twice."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        example = '{"function": {"name": …, "arguments": {…}}}'
        raise ValueError(f"a tool call should be an object such as {example}, not {kind(call)}")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = from_json(arguments, f"the arguments of the call of {function['name']}")
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of the call of {function['name']} should be an object, not {kind(arguments)}")
    named = {key: value for key, value in call.items() if key in ("id", "type") and value is not None}
    return {"type": "function", **named, "function": {"name": function["name"], "arguments": arguments}}


def with_tools(row: dict, messages: list[dict]) -> dict:
    """The conversation, and the tools that were offered in it: a list, or a list as JSON text."""
    tools = row.get("tools")
    tools = from_json(tools, "tools") if isinstance(tools, str) and tools.strip() else tools
    if not tools:
        return {"messages": messages}
    if not all(isinstance(tool, dict) for tool in as_list(tools, "tools")):
        raise ValueError("tools should be a list of objects, each the JSON schema of a function")
    return {"messages": messages, "tools": tools}


def check_order(messages: list[dict]) -> None:
    """Raises ValueError for roles in an order that no chat template takes."""
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise ValueError(f"there is no assistant turn, so nothing to learn: its roles are {', '.join(roles) or 'none'}")
    if "system" in roles[1:]:
        raise ValueError(f"message {roles.index('system', 1) + 1} is of the system, which only the first can be")
    first = next(role for role in roles if role != "system")
    if first != "user":
        raise ValueError(f"the first turn is the {first}'s: it should be a user's, with the system before it at most")
    for i, (before, role) in enumerate(pairwise(roles)):
        if role == "tool" and before not in ("assistant", "tool"):
            raise ValueError(f"message {i + 2} is a tool's, which can only follow the assistant that called it")


def text_of(row: dict, key: str) -> str:
    """The text of a field; of an answer's field one that says something."""
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"{key!r} should be text, not {kind(value)}")
    if key in ("output", "response", "completion", "answer") and not value.strip():
        raise ValueError(f"the answer is empty: {key!r} says nothing")
    return value


def as_list(value: object, name: str) -> list:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} should be a list with something in it, not {kind(value)}")
    return value


def from_json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} should be JSON: {error.msg} at column {error.colno}") from error


def kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
