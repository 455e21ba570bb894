"""Rows of every layout become the same conversations; mistakes are named."""

import json

import pytest

from finetune.formats import FORMATS, format_of, read_example
from tests.finetune.conversations import CALL, TOOL, WITH_TOOLS

ASKED = [{"role": "user", "content": "2 * 3?"}, {"role": "assistant", "content": "6"}]


def read(row: dict, **options) -> dict:
    return read_example(row, format_of(row), **options)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ASKED},
        {"messages": [{**message, "tool_calls": None, "name": None} for message in ASKED], "tools": None, "id": 7},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 * 3?"}]}, ASKED[1]]},
        {"conversations": [{"from": "human", "value": "2 * 3?"}, {"from": "gpt", "value": "6"}]},
        {"conversations": ASKED},
        {"prompt": "2 * 3?", "completion": "6"},
        {"prompt": ASKED[:1], "completion": ASKED[1:]},
        {"question": "2 * 3?", "answer": "6"},
        {"instruction": "2 * 3?", "response": "6", "context": ""},
        {"instruction": "2 * 3?", "input": "", "output": "6", "text": "Below is an instruction … 2 * 3? … 6"},
    ],
)
def test_layouts_of_one_exchange(row):
    before = json.dumps(row)
    assert read(row) == {"messages": ASKED}
    assert json.dumps(row) == before  # what was read stays as it is


def test_an_instructions_input_stands_behind_a_blank_line():
    row = {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"}
    assert read(row)["messages"][0]["content"] == "Add the numbers.\n\n2, 3"
    asked = read({"instruction": "When?", "context": "In 1869 …", "response": "1869", "category": "qa"})["messages"][0]
    assert asked["content"] == "When?\n\nIn 1869 …"


def test_texts_and_system_messages():
    assert read({"text": " A tale.\n", "id": 3}) == {"text": " A tale.\n"}
    system = {"role": "system", "content": "Be brief."}
    assert read({"messages": ASKED}, system="Be brief.") == {"messages": [system, *ASKED]}
    own = {"role": "system", "content": "Rhyme."}
    assert read({"messages": [own, *ASKED]}, system="Be brief.") == {"messages": [own, *ASKED]}
    shared = {
        "system": "Rhyme.",
        "conversations": [{"from": "human", "value": "2 * 3?"}, {"from": "gpt", "value": "6"}],
    }
    assert read(shared) == {"messages": [own, *ASKED]}
    assert read({"text": "A tale."}, system="Be brief.") == {"text": "A tale."}


def test_tool_calls_as_openai_writes_them():
    call = {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 2, "b": 3}'}}
    openai = [
        WITH_TOOLS[0],
        {"role": "assistant", "content": None, "tool_calls": [call, CALL["function"]]},
        *WITH_TOOLS[2:],
    ]
    example = read({"messages": openai, "tools": json.dumps([TOOL])})
    assert example["tools"] == [TOOL]
    assert example["messages"][1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", **CALL}, CALL],
    }
    assert example["messages"][2:] == WITH_TOOLS[2:]
    thought = {"role": "assistant", "content": "6", "reasoning_content": "hm"}
    assert read({"messages": [ASKED[0], thought]})["messages"][1] == thought


def assistant(**message) -> dict:
    return {"messages": [ASKED[0], {"role": "assistant", **message}]}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (["a"], "should be a JSON object such as .*, not a list"),
        ("a", "not text"),
        ({"foo": 1, "bar": 2}, "holds 'foo', 'bar', which is no format known: .*\"messages\": .*\"text\""),
        ({"instruction": "a"}, "holds 'instruction', which is no format known"),
        ({"messages": []}, "'messages' should be a list with something in it, not an empty list"),
        ({"messages": "a"}, "'messages' should be a list with something in it, not text"),
        ({"messages": ["a"]}, "a message should be an object"),
        ({"conversations": ["a"]}, "a message should be an object"),
        ({"messages": [{"content": "a"}]}, "a message should be an object"),
        ({"messages": [{"role": "usr", "content": "a"}]}, "unknown role 'usr'; known: system, user, assistant, tool"),
        ({"conversations": [{"from": "narrator", "value": "a"}]}, "unknown role 'narrator'"),
        ({"messages": ASKED[:1]}, "there is no assistant turn, so nothing to learn: its roles are user"),
        ({"messages": ASKED[::-1]}, "the first turn is the assistant's: it should be a user's"),
        ({"messages": [{"role": "system", "content": "s"}, ASKED[1]]}, "the first turn is the assistant's"),
        (
            {"messages": [*ASKED, {"role": "system", "content": "s"}]},
            "message 3 is of the system, which only the first",
        ),
        ({"messages": [ASKED[0], {"role": "tool", "content": "6"}, ASKED[1]]}, "message 2 is a tool's"),
        (assistant(content=" \n"), "the answer is empty"),
        (assistant(content=None), "the content of the assistant's message should be text, not null"),
        (assistant(content=6), "the content of the assistant's message should be text, not a number"),
        (assistant(content=[{"type": "image", "url": "a.png"}]), "holds a part that is not text"),
        (assistant(tool_calls=["multiply"]), "a tool call should be an object such as .*, not text"),
        (
            assistant(tool_calls=[{"function": {"name": "f", "arguments": "{a: 2}"}}]),
            "arguments of the call of f should be JSON",
        ),
        (
            assistant(tool_calls=[{"function": {"name": "f", "arguments": "[2]"}}]),
            "call of f should be an object, not a list",
        ),
        ({"messages": ASKED, "tools": ["multiply"]}, "tools should be a list of objects"),
        ({"messages": ASKED, "tools": "[multiply]"}, "tools should be JSON"),
        ({"question": "a", "answer": "  "}, "the answer is empty: 'answer' says nothing"),
        ({"instruction": "a", "output": ""}, "the answer is empty: 'output' says nothing"),
        ({"instruction": "a", "input": 3, "output": "b"}, "input of the instruction should be text, not a number"),
        ({"prompt": "a", "completion": 3}, "'completion' should be text, not a number"),
        ({"prompt": ASKED[:1], "completion": "6"}, "'completion' should be a list"),
        ({"text": " "}, "the text is empty"),
    ],
)
def test_mistakes_are_sentences(row, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read(row)
    assert "\n" not in str(error.value)


def test_every_format_says_how_it_looks():
    for name, one in FORMATS.items():
        assert one.about.startswith('{"') and all(
            any(f'"{key}"' in one.about for key in group) for group in one.keys
        ), name
