"""Examples as arrays: what is in them, found again, cut, dropped, refused, and mixed with what is replayed."""

import json

import numpy as np
import pytest

from data.corpora import add_corpus
from finetune.encoding import Encoded, prepare
from finetune.examples import ExamplesRecipe
from finetune.rendering import answer_end, render


def recipe(tmp_path, count: int = 20, long: int = 0, **fields) -> ExamplesRecipe:
    """Examples of which the last `long` have answers of far more tokens."""
    rows = [{"prompt": f"n {i}?", "completion": f"It is {i}." * (1 + 40 * (i >= count - long))} for i in range(count)]
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ExamplesRecipe(source=str(file), **fields)


def test_examples_stand_end_to_end(tmp_path, workspace, qwen):
    tokenizer = qwen("qwen3")
    prepared = prepare(recipe(tmp_path), tokenizer, 128, workspace)
    assert (prepared.cut, prepared.dropped, prepared.replay) == (0, 0, None)
    for split in ("train", "validation"):
        encoded, examples = prepared.splits[split], prepared.examples.split(split)
        assert len(encoded) == len(examples)
        assert (encoded.ids.dtype, encoded.scored.dtype, encoded.starts.dtype) == (np.int32, bool, np.int64)
        assert encoded.starts[0] == 0 and encoded.starts[-1] == len(encoded.ids) == len(encoded.scored)
        for i, example in enumerate(examples):  # one by one as all at once
            rendered = render(example, tokenizer)
            ids, scored = encoded.example(i)
            assert ids.tolist() == rendered.ids.tolist() and scored.tolist() == rendered.scored.tolist()
            assert ids[scored][-1] == answer_end(tokenizer)


def test_it_is_encoded_once(tmp_path, workspace, qwen, monkeypatch):
    tokenizer, chosen = qwen("qwen3"), recipe(tmp_path)
    first = prepare(chosen, tokenizer, 128, workspace)
    folders = sorted((workspace.root / "tokens").iterdir())
    tokenizer("used with another padding", padding="max_length", max_length=40, truncation=True)  # leaves a trace in it
    with monkeypatch.context() as patch:
        patch.setattr("finetune.encoding.encode", None)
        again = prepare(chosen, tokenizer, 128, workspace)
        assert isinstance(again.splits["train"].ids, np.memmap)
        same = prepare(chosen, qwen("qwen3"), 128, workspace)  # another object, the same tokenizer
    for split in ("train", "validation"):
        for other in (again, same):
            assert np.array_equal(first.splits[split].ids, other.splits[split].ids)
    assert sorted((workspace.root / "tokens").iterdir()) == folders and len(folders) == 1
    prepare(chosen, qwen("qwen2_5"), 128, workspace)
    prepare(chosen, tokenizer, 96, workspace)
    assert len(list((workspace.root / "tokens").iterdir())) == 3


def test_too_long(tmp_path, workspace, qwen):
    tokenizer = qwen("qwen2_5")
    sentence = (
        r"line 1[78]: the example has \d+ tokens, more than the context of 80 \(4 of 20 have, the longest \d+\): raise"
    )
    with pytest.raises(ValueError, match=sentence):
        prepare(recipe(tmp_path, long=4), tokenizer, 80, workspace)
    assert not [path for path in (workspace.root / "tokens").iterdir() if not path.name.startswith(".")]
    cut = prepare(recipe(tmp_path, long=4, too_long="cut"), tokenizer, 80, workspace)
    assert (cut.cut, cut.dropped) == (4, 0)
    lengths = np.concatenate([np.diff(one.starts) for one in cut.splits.values()])
    assert len(lengths) == 20 and (lengths == 80).sum() == 4 and lengths.max() == 80
    dropped = prepare(recipe(tmp_path, long=4, too_long="drop"), tokenizer, 80, workspace)
    assert (dropped.cut, dropped.dropped) == (0, 4) and sum(map(len, dropped.splits.values())) == 16
    # a context that holds no more than the prompt leaves nothing of any answer to learn
    prompt = int(np.flatnonzero(render(cut.examples.split("train")[0], tokenizer).scored)[0])
    with pytest.raises(
        ValueError, match=f"every train example of chat.* is longer than the context of {prompt} tokens"
    ):
        prepare(recipe(tmp_path, too_long="cut"), tokenizer, prompt, workspace)


def test_a_template_that_is_missing_names_the_first_line(tmp_path, workspace, lab):
    tokenizer = lab()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"chat.jsonl, line \d+: this model's tokenizer has no chat template"):
        prepare(recipe(tmp_path), tokenizer, 128, workspace)


def test_texts_of_a_corpus_are_replayed(tmp_path, workspace, qwen):
    tokenizer = qwen("qwen2_5")
    text = tmp_path / "tales"
    text.mkdir()
    for i in range(30):
        (text / f"{i:02}.txt").write_text(f"Tale {i}. " + "Once there was a fox. " * (1 + i))
    corpus = add_corpus("tales-of-mine", [text], workspace)
    chosen = recipe(tmp_path, replay="tales-of-mine", replay_share=0.25)
    prepared = prepare(chosen, tokenizer, 80, workspace)
    plain = prepare(recipe(tmp_path), tokenizer, 80, workspace)
    train = prepared.splits["train"]
    assert len(train) == 24 and prepared.replay == {"name": corpus.name, "sha256": corpus.sha256, "examples": 6}
    assert np.array_equal(prepared.splits["validation"].ids, plain.splits["validation"].ids)
    assert np.array_equal(train.ids[: len(plain.splits["train"].ids)], plain.splits["train"].ids)
    whole = ["".join(one) for one in corpus.texts("train")]
    for i in range(18, 24):
        ids, scored = train.example(i)
        assert 2 <= len(ids) <= 80 and scored.tolist() == [False] + [True] * (len(ids) - 1)
        piece = tokenizer.decode(ids)
        assert any(piece.removesuffix("<|endoftext|>") in one for one in whole)
    again = prepare(recipe(tmp_path, replay="tales-of-mine", replay_share=0.25), tokenizer, 80, workspace)
    assert np.array_equal(again.splits["train"].ids, train.ids)
    with pytest.raises(
        ValueError, match=r"data.replay tales-of-mine has \d+ pieces of at most 80 tokens, and data.replay_share 0.95"
    ):
        prepare(recipe(tmp_path, replay="tales-of-mine", replay_share=0.95), tokenizer, 80, workspace)


def test_other_examples_are_replayed(tmp_path, workspace, qwen):
    tokenizer = qwen("qwen2_5")
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"question": f"Old {i}?", "answer": "Old."}) + "\n" for i in range(40)))
    prepared = prepare(recipe(tmp_path, replay=str(other), replay_share=0.5), tokenizer, 128, workspace)
    train = prepared.splits["train"]
    assert len(train) == 36 and prepared.replay["name"] == "other" and prepared.replay["examples"] == 18
    answers = [tokenizer.decode(ids[scored]) for ids, scored in map(train.example, range(18, 36))]
    assert answers == ["Old.<|im_end|>"] * 18
    asked = {tokenizer.decode(train.example(i)[0]) for i in range(18, 36)}
    assert len(asked) == 18  # none twice
    with pytest.raises(ValueError, match=r"data.replay: 'primmer' is neither a built-in set"):
        prepare(recipe(tmp_path, replay="primmer", replay_share=0.5), tokenizer, 128, workspace)
    other.write_text(json.dumps({"question": "Old?" * 99, "answer": "Old."}) + "\n" + other.read_text())
    with pytest.raises(
        ValueError, match=r"other.jsonl, line 1: the example has .* more than the context of 128: raise"
    ):
        prepare(recipe(tmp_path, replay=str(other), replay_share=0.66), tokenizer, 128, workspace)


def test_plain_texts_are_examples_too(tmp_path, workspace, lab):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"The answer is {i}."}) + "\n" for i in range(10)))
    tokenizer = lab()
    encoded = prepare(ExamplesRecipe(source=str(file)), tokenizer, 80, workspace).splits["train"]
    assert len(encoded) == 9
    for i in range(9):
        ids, scored = encoded.example(i)
        assert ids[-1] == tokenizer.eos_token_id and scored.sum() == len(ids) - 1 and not scored[0]


def test_an_example_is_a_slice():
    encoded = Encoded(np.arange(6, dtype=np.int32), np.array([0, 1, 0, 0, 1, 1], dtype=bool), np.array([0, 2, 6]))
    ids, scored = encoded.example(1)
    assert len(encoded) == 2 and ids.tolist() == [2, 3, 4, 5] and scored.tolist() == [False, False, True, True]
