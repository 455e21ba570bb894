"""A recipe's data in one call."""

import dataclasses

import pytest

from data import builtin
from data.prepare import DataRecipe, prepare


def test_from_nothing_and_from_what_is_there(workspace, monkeypatch, capsys):
    monkeypatch.setattr(builtin, "TALES", 120)
    monkeypatch.setattr(builtin, "TALES_HELD_OUT", 20)
    corpus, tokenizer, tokens = prepare(DataRecipe(vocab_size=400), workspace)
    phases = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert phases == ["corpus", "tokenizer", "tokens"]
    assert (corpus.name, tokenizer.name) == ("tales", "tales-bpe-400@v1")
    for split in ("train", "validation"):
        nats = -sum(corpus.split(split)["log_prob"])
        assert tokens.meta["splits"][split]["floor"] == pytest.approx(nats / len(tokens.split(split)))
    again = prepare(DataRecipe(vocab_size=400), workspace)
    assert capsys.readouterr().err == ""
    assert [part.sha256 for part in again] == [corpus.sha256, tokenizer.sha256, tokens.sha256]


def test_a_resolved_recipe_finds_the_same_data(workspace, write):
    path = write("mine.jsonl", [{"title": "t", "body": f"Text number {i}."} for i in range(50)])
    recipe = DataRecipe(corpus=str(path), tokenizer="char", validation_fraction=0.2, split_seed=3, text_field="body")
    first = prepare(recipe, workspace)
    path.unlink()  # a run names what it was trained on, and does not need where that came from
    second = prepare(dataclasses.replace(recipe, corpus=first[0].name, tokenizer=first[1].name), workspace)
    assert [part.sha256 for part in first] == [part.sha256 for part in second]
    assert first[0].manifest["splits"]["validation"]["documents"] == 10


def test_the_same_data_anywhere(tmp_path, write):
    from data.workspace import Workspace

    path = write("mine.txt", "A text of one's own, twice told. " * 60)
    made = [prepare(DataRecipe(corpus=str(path), vocab_size=280), Workspace(tmp_path / name)) for name in ("a", "b")]
    assert [part.sha256 for part in made[0]] == [part.sha256 for part in made[1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "data.vocab_size 0 should be a number of entries"),
        ({"validation_fraction": 1.5}, "data.validation_fraction 1.5 should lie between 0 and 1"),
        ({"split_seed": -1}, "data.split_seed -1 should be 0 or more"),
        ({"corpus": " "}, "data.corpus is empty: name one, such as 'tales'"),
        ({"tokenizer": ""}, "data.tokenizer is empty: name one, such as 'bpe'"),
        ({"vocabsize": 3}, "vocabsize"),
        ({"vocab_size": "many"}, "valid integer"),
    ],
)
def test_a_wrong_recipe_is_a_value_error(fields, message):
    with pytest.raises(ValueError, match=message):
        DataRecipe(**fields)


def test_every_field_says_what_it_is():
    from pydantic import TypeAdapter

    properties = TypeAdapter(DataRecipe).json_schema()["properties"]
    assert properties.keys() == {field.name for field in dataclasses.fields(DataRecipe)}
    assert all(field["description"] for field in properties.values())


def test_a_corpus_shorter_than_its_vocabulary(workspace, write, capsys):
    _, tokenizer, _ = prepare(DataRecipe(corpus=str(write("short.txt", "few words here, few"))), workspace)
    assert len(tokenizer.tokenizer) < 1024 and "the text gives no more" in capsys.readouterr().err
