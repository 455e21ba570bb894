"""Examples from files and from a Hub on this machine: read, split, frozen, found again; mistakes name the place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.hub_corpora import Choice
from data.workspace import Workspace
from finetune.examples import BUILT_IN, ExamplesRecipe, open_examples, snapshot_names
from finetune.sources import find_source
from tests.data.dataset_hub import COMMIT, DatasetHub, card, parquet
from training.recipe import validate

ROOT = Path(__file__).resolve().parents[2]


def rows(count: int, word: str = "n") -> list[dict]:
    return [{"question": f"{word} {i}?", "answer": f"It is {i}."} for i in range(count)]


def write(path: Path, entries: list, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in entries), encoding=encoding)
    return path


def questions(examples: list[dict]) -> list[str]:
    return [one["messages"][0]["content"] for one in examples]


def test_a_file_is_split_frozen_and_found_again(tmp_path, workspace, capsys):
    file = write(tmp_path / "My chat.jsonl", rows(20))
    made = open_examples(ExamplesRecipe(source=str(file)), workspace)
    train, held_out = made.split("train"), made.split("validation")
    assert made.name == "My-chat" and made.path == workspace.root / "examples" / "My-chat"
    assert len(train) == 18 and len(held_out) == 2
    assert sorted(questions(train + held_out)) == sorted(f"n {i}?" for i in range(20))
    for example in train + held_out:  # each knows its line
        line = int(example["source"].removeprefix("My chat.jsonl:"))
        assert example["messages"][0]["content"] == f"n {line - 1}?"
    assert [one["source"] for one in train] == sorted([one["source"] for one in train], key=lambda s: int(s[14:]))
    capsys.readouterr()
    again = open_examples(ExamplesRecipe(source=str(file)), workspace)
    assert (again.name, again.sha256) == (made.name, made.sha256) and not capsys.readouterr().err
    other = open_examples(ExamplesRecipe(source=str(file), split_seed=1), workspace)
    assert other.name != made.name and questions(other.split("validation")) != questions(held_out)
    file.write_text(file.read_text() + json.dumps(rows(1, "new")[0]))
    changed = open_examples(ExamplesRecipe(source=str(file)), workspace)
    assert changed.name.startswith("My-chat-") and changed.sha256 != made.sha256
    assert len(changed.split("train")) == 19 and open_examples(ExamplesRecipe(source="My-chat"), workspace) == made


def test_by_its_name_a_snapshot_is_what_it_was_made_as(tmp_path, workspace, monkeypatch, capsys):
    file = write(tmp_path / "chat.jsonl", rows(20))
    made = open_examples(ExamplesRecipe(source=str(file), documents=10, validation_fraction=0.3), workspace)
    assert questions(made.split("train") + made.split("validation")) and len(made.split("train")) == 7
    file.unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat").mkdir()  # a folder of the same name lies where somebody stands: the name is the snapshot's
    same = ExamplesRecipe(source="chat", documents=10, validation_fraction=0.3)
    assert open_examples(same, workspace).sha256 == made.sha256
    assert "write ./chat for the folder that lies here" in capsys.readouterr().err and snapshot_names(workspace) == [
        "chat"
    ]
    with pytest.raises(ValueError, match=r"chat were made with data.validation_fraction 0.3, not 0.1"):
        open_examples(ExamplesRecipe(source="chat", documents=10), workspace)


def test_folders_blank_lines_marks_and_lists(tmp_path, workspace):
    folder = tmp_path / "set"
    write(folder / "b.jsonl", rows(3, "b"))
    (folder / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf\n" + b"\n\n".join(json.dumps(one).encode() for one in rows(2, "a")) + b"\n\n"
    )
    (folder / "deep").mkdir()
    (folder / "deep" / "c.json").write_text(json.dumps(rows(2, "c"), indent=1))
    (folder / ".hidden.jsonl").write_text("no")
    (folder / "notes.txt").write_text("no")
    made = open_examples(ExamplesRecipe(source=str(folder), validation_fraction=0.5), workspace)
    found = {
        one["source"]: one["messages"][0]["content"] for name in ("train", "validation") for one in made.split(name)
    }
    assert found == {
        "set/a.jsonl:2": "a 0?", "set/a.jsonl:4": "a 1?",
        "set/b.jsonl:1": "b 0?", "set/b.jsonl:2": "b 1?", "set/b.jsonl:3": "b 2?",
        "set/deep/c.json:1": "c 0?", "set/deep/c.json:2": "c 1?",
    }  # fmt: skip


def test_a_system_message_for_those_without(tmp_path, workspace):
    own = {
        "messages": [
            {"role": "system", "content": "Rhyme."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]
    }
    without = {"messages": own["messages"][1:]}
    file = write(tmp_path / "chat.jsonl", [own, without])
    made = open_examples(ExamplesRecipe(source=str(file), system="Be brief.", validation_fraction=0.5), workspace)
    systems = [made.split(name)[0]["messages"][0]["content"] for name in ("train", "validation")]
    assert sorted(systems) == ["Be brief.", "Rhyme."]


GOOD = rows(1)[0]
MIXED = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
TWO = json.dumps(MIXED)


@pytest.mark.parametrize(
    ("third", "sentence"),
    [
        ("{'a': 1}", "chat.jsonl, line 3: not JSON: .* at column 2"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "chat.jsonl, line 3: there is no assistant turn"),
        (TWO.replace('"b"', '" "'), "chat.jsonl, line 3: the answer is empty"),
        (TWO.replace("assistant", "asistant"), "chat.jsonl, line 3: unknown role 'asistant'"),
        ('{"text": "a tale"}', "chat.jsonl, line 3: it is of the format 'text', and chat.jsonl, line 1 of 'messages'"),
        ("[1, 2]", "chat.jsonl, line 3: an example should be a JSON object"),
        (TWO.replace('"b"', '"\\ud800"'), "chat.jsonl, line 3: half a surrogate pair"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, workspace, third, sentence):
    file = tmp_path / "chat.jsonl"
    file.write_text(f"{TWO}\n\n{third}\n{TWO}\n")
    with pytest.raises(ValueError, match=sentence) as error:
        open_examples(ExamplesRecipe(source=str(file)), workspace)
    assert "\n" not in str(error.value) and not list(workspace.room("examples").iterdir())


def test_other_mistakes(tmp_path, workspace):
    def told(**recipe) -> str:
        with pytest.raises(ValueError) as error:
            open_examples(ExamplesRecipe(**recipe), workspace)
        return str(error.value)

    empty, few, list_file = tmp_path / "empty.jsonl", write(tmp_path / "few.jsonl", rows(4)), tmp_path / "list.json"
    empty.write_text("\n\n")
    list_file.write_text('[{"a": 1},\n')
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"text": "é"}'.encode("latin-1"))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    assert "holds no examples at all" in told(source=str(empty))
    assert "holds 4 examples, and data.validation_fraction 0.1 leaves none to validate on" in told(source=str(few))
    assert "leaves none to train on" in told(source=str(few), validation_fraction=0.9)
    assert "list.json, line 2: not JSON" in told(source=str(list_file))
    assert "not UTF-8" in told(source=str(latin))
    assert "holds 1 .png, and no .jsonl or .json file of examples" in told(source=str(tmp_path / "pictures"))
    assert "is no file of examples" in told(source=str(tmp_path / "pictures" / "a.png"))
    assert "'storys' is neither a built-in set of examples nor a file" in told(source="storys")
    assert "did you mean 'stories'?" in told(source="storys")
    assert "'stories' is not a dataset on the Hub, so it has no config" in told(source="stories", config="en")
    assert "HF_HUB_OFFLINE is set" in told(source="alpaca")


def test_recipes_that_cannot_be():
    for fields, sentence in [
        ({"source": " "}, "data.source is empty"),
        ({"replay_share": 0.5}, "data.replay names nothing"),
        ({"replay_share": 1.0, "replay": "tales"}, "data.replay_share cannot be 1.0"),
        ({"too_long": "split"}, "data.too_long cannot be 'split'"),
        ({"documents": 0}, "data.documents cannot be 0"),
        ({"validation_fraction": 0}, "data.validation_fraction cannot be 0"),
        ({"sauce": "a"}, "unknown recipe key data.sauce; did you mean 'source'?"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            validate(ExamplesRecipe, fields, "data")


def test_built_in_sets(workspace):
    for name in BUILT_IN:
        made = open_examples(ExamplesRecipe(source=name, documents=40), workspace)
        assert len(made.split("train")) == 36 and made.split("train")[0]["source"].startswith(f"{name}:")
        assert open_examples(ExamplesRecipe(source=name, documents=40), workspace) == made
        assert open_examples(ExamplesRecipe(source=name, documents=50), workspace).name != made.name


@pytest.fixture(scope="module")
def hub():
    server = DatasetHub()
    alpaca = [
        {"instruction": f"Do {i}.", "input": "this" * (i % 2), "output": f"Done {i}.", "text": "all of it"}
        for i in range(30)
    ]
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    talk = [
        [
            {"role": "user", "content": f"n {i}"},
            {"role": "assistant", "content": None if i else "ok", "tool_calls": [call] if i else None},
        ]
        for i in range(10)
    ]
    server.repos = {
        "tatsu-lab/alpaca": {"data/train-00000-of-00001.parquet": parquet(alpaca), "README.md": card()},
        "some/chat": {
            "en/train.parquet": parquet([{"messages": one} for one in talk]),
            "en/test.parquet": parquet([{"messages": one} for one in talk[:4]]),
            "fr/train.parquet": parquet([{"messages": talk[0][:1]}]),
            "README.md": card(en={"train": "en/train.parquet", "test": "en/test.parquet"}, fr={"train": "fr/*"}),
        },
    }
    yield server
    server.shutdown()


# One process does all that needs the Hub: the libraries read its address when they are imported.
TASKS = """
import json, sys
from data.workspace import Workspace
from finetune.examples import ExamplesRecipe, open_examples
told = []
for recipe in json.loads(sys.argv[2]):
    try:
        told.append(open_examples(ExamplesRecipe(**recipe), Workspace(sys.argv[1])).name)
    except ValueError as error:
        told.append(f"error: {error}")
print(json.dumps(told))
"""


def test_datasets_of_the_hub(hub, tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    tasks = [
        {"source": "alpaca"},
        {"source": "tatsu-lab/alpaca", "documents": 10},
        {"source": "hf:some/chat", "config": "en"},
        {"source": "some/chat", "config": "en", "split": "test", "validation_fraction": 0.5},
        {"source": "some/chat", "config": "fr"},
        {"source": "some/chat"},
        {"source": "some/chat", "config": "en", "split": "tests"},
        {"source": "nobody/nothing"},
    ]
    words = [sys.executable, "-c", TASKS, str(workspace.root), json.dumps(tasks)]
    environment = {**os.environ, **hub.environment(tmp_path / "home")}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told[0] == "tatsu-lab-alpaca" and told[1].startswith("tatsu-lab-alpaca-") and told[2] == "some-chat-en"
    assert told[3].startswith("some-chat-en-")
    assert "some/chat, row 1: there is no assistant turn" in told[4]
    assert "several configurations, name one of en, fr" in told[5]
    assert "no split 'tests'; did you mean 'test'?" in told[6]
    assert "no dataset 'nobody/nothing' on the Hub" in told[7]
    # from here on without a network
    whole = open_examples(ExamplesRecipe(source="alpaca"), workspace)
    assert len(whole.split("train")) == 27 and whole.manifest["hub"]["revision"] == COMMIT
    assert whole.manifest["licence"] == "mit"
    example = next(one for one in whole.split("train") if one["source"] == "tatsu-lab/alpaca:2")
    assert [message["content"] for message in example["messages"]] == ["Do 1.\n\nthis", "Done 1."]
    assert len(open_examples(ExamplesRecipe(source="alpaca", documents=10), workspace).split("train")) == 9
    chat = open_examples(ExamplesRecipe(source="some/chat", config="en"), workspace).split("train")
    called = next(one for one in chat if one["source"] != "some/chat:1")["messages"][1]
    assert called["content"] == "" and called["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        open_examples(ExamplesRecipe(source="alpaca", revision="v2"), workspace)


def test_what_a_name_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_source("tatsu-lab/alpaca", Choice()).hub["dataset"] == "tatsu-lab/alpaca"
    write(tmp_path / "tatsu-lab" / "alpaca" / "a.jsonl", rows(1))  # a folder that is there goes before the Hub
    assert not find_source("tatsu-lab/alpaca", Choice()).hub
    assert find_source("hf:tatsu-lab/alpaca", Choice()).hub["dataset"] == "tatsu-lab/alpaca"
    assert find_source("alpaca", Choice()).hub["dataset"] == "tatsu-lab/alpaca"
