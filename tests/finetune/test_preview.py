"""The look before training, against what training then really does with the same recipe."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from data.workspace import Workspace
from finetune import looked as looking
from finetune.batches import ExampleBatches, padded
from finetune.encoding import prepare
from finetune.packing import pack
from finetune.preview import check_before, preview
from finetune.preview_cli import main, show
from finetune.recipe import build_recipe
from finetune.rendering import render
from hub.models import open_tokenizer
from training import estimate as estimating

WORDS = ["once", "upon", "a", "time", "there", "was", "a", "fox", "who", "told", "tales", "of", "Paris"]


@pytest.fixture
def base(tmp_path, qwen):
    """A folder with a tokenizer and a configuration, and no weights: none may be asked for."""
    folder = tmp_path / "base"
    tokenizer = qwen("qwen3")
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=64, max_position_embeddings=160, tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def chats(tmp_path):
    """A file of conversations, each longer than the one before by a few words."""
    path = tmp_path / "chats.jsonl"
    random = np.random.default_rng(0)
    rows = [{"prompt": f"Tell {i}", "completion": " ".join(random.choice(WORDS, 1 + i % 23))} for i in range(50)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def recipe_of(base, chats, data: dict | None = None, **train):
    parts = {"data": {"source": str(chats), **(data or {})}, "model": {"base": str(base), "rank": 4}}
    return build_recipe({**parts, "train": {"context": 128, "batch_size": 8, "device": "cpu", **train}})


def test_the_shown_examples_are_what_is_trained_on(base, chats, workspace):
    recipe = recipe_of(base, chats)
    found = preview(recipe, workspace, count=4)
    assert not (workspace.root / "examples").exists() and not (workspace.root / "tokens").exists()  # nothing is made
    tokenizer = open_tokenizer(base)
    prepared = prepare(recipe.data, tokenizer, 128, workspace)
    for i, (one, example) in enumerate(zip(found.shown, prepared.examples.split("train"), strict=False)):
        ids, scored = prepared.splits["train"].example(i)
        assert one.scored == scored.tolist() and len(one.pieces) == len(ids)
        assert "".join(one.pieces) == render(example, tokenizer).text
        assert one.source == example["source"]
    assert found.end == "<|im_end|>" and tokenizer.convert_ids_to_tokens(found.end_id) == found.end


@pytest.mark.parametrize("packing", [False, True])
def test_lengths_and_steps_are_those_of_training(base, chats, workspace, packing):
    recipe = recipe_of(base, chats, {"packing": packing}, epochs=2)
    found = preview(recipe, workspace)
    encoded = prepare(recipe.data, open_tokenizer(base), 128, workspace).splits["train"]
    lengths = np.diff(encoded.starts)
    bins = pack(lengths, 128)
    batches = ExampleBatches(encoded, batch_size=8, seed=0, bins=bins if packing else None)
    assert found.lengths == lengths.tolist() and found.looked_at == found.train_examples == 45
    assert found.validation_examples == 5
    assert found.spread["longest"] == lengths.max() and found.spread["shortest"] == lengths.min()
    assert found.rows_per_epoch == batches.rows_per_epoch and found.steps_per_epoch == batches.steps_per_epoch
    assert found.steps == round(2 * batches.steps_per_epoch)
    assert found.tokens == pytest.approx(found.steps * batches.tokens_per_step, rel=0.01)
    assert found.scored_share == pytest.approx(encoded.scored.mean())
    assert found.longest_row == max(lengths[rows].sum() for rows in bins) if packing else lengths.max()


def test_padding_and_what_packing_saves_by_counting_the_batches(base, chats, workspace):
    alone, packed = (preview(recipe_of(base, chats, {"packing": one}), workspace) for one in (False, True))
    encoded = prepare(recipe_of(base, chats).data, open_tokenizer(base), 128, workspace).splits["train"]
    lengths = np.diff(encoded.starts)

    def computed(rows: list[np.ndarray]) -> float:
        """Tokens of an epoch's batches, the mean of many orders."""
        totals = []
        for seed in range(200):
            order = np.random.default_rng(seed).permutation(len(rows))
            batches = [order[i : i + 8] for i in range(0, len(rows), 8)]
            totals.append(sum(len(one) * max(rows[i].sum() for i in one) for one in batches))
        return float(np.mean(totals))

    one_each, together = computed(list(lengths[:, None])), computed([lengths[rows] for rows in pack(lengths, 128)])
    assert alone.padding == pytest.approx(1 - lengths.sum() / one_each, abs=0.06)
    assert packed.padding == pytest.approx(1 - lengths.sum() / together, abs=0.06)
    assert alone.packing_saves == packed.packing_saves == pytest.approx(1 - together / one_each, abs=0.06)


def test_too_long_examples_are_counted(base, chats, workspace):
    lengths = np.array(preview(recipe_of(base, chats), workspace).lengths)
    context = int(np.median(lengths))
    over = int((lengths > context).sum())
    refuse, cut, drop = (
        preview(recipe_of(base, chats, {"too_long": one}, context=context), workspace)
        for one in ("refuse", "cut", "drop")
    )
    assert (refuse.refused, refuse.cut, refuse.dropped) == (over, 0, 0)
    assert f"{over} examples are longer than train.context" in " ".join(refuse.notes)
    for found, way in ((cut, "cut"), (drop, "drop")):
        data = recipe_of(base, chats, {"too_long": way}).data
        prepared = prepare(data, open_tokenizer(base), context, workspace)
        assert found.rows_per_epoch == len(prepared.splits["train"])
        assert found.refused == 0 and found.cut + found.dropped == over
    assert drop.dropped == over and sum(one.beyond > 0 for one in cut.shown) == (lengths[:3] > context).sum()


def test_the_context_is_what_the_base_takes(base, chats, workspace):
    assert preview(recipe_of(base, chats, context=4096), workspace).context == 160


def test_of_many_examples_some_are_looked_at(base, chats, workspace, monkeypatch):
    whole = preview(recipe_of(base, chats), workspace)
    monkeypatch.setattr(looking, "LOOKED_AT", 15)
    looking._look.cache_clear()
    some = preview(recipe_of(base, chats), workspace)
    looking._look.cache_clear()
    assert (some.looked_at, some.train_examples) == (15, 45)
    assert some.rows_per_epoch == 45 and some.longest_row == 128  # unseen ones may be as long as is allowed
    assert some.lengths == whole.lengths[::3]
    assert "15 of 45 training examples were looked at" in some.notes[0]


def test_a_changed_file_is_seen_and_its_mistakes_are_told(base, chats, workspace):
    before = preview(recipe_of(base, chats), workspace)
    chats.write_text(chats.read_text() + '\n{"prompt": "One", "completion": "more"}\n', encoding="utf-8")
    after = preview(recipe_of(base, chats), workspace)
    assert after.train_examples + after.validation_examples == 51 == 1 + 50
    assert before.train_examples + before.validation_examples == 50
    chats.write_text(chats.read_text() + '{"prompt": "One", "completion": ""}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"chats.jsonl, line 52: "):
        preview(recipe_of(base, chats), workspace)


def test_memory_is_reckoned_for_the_longest_row(base, chats, workspace):
    short, long = (preview(recipe_of(base, chats, context=n), workspace) for n in (100, 150))
    assert short.estimate.memory == long.estimate.memory and short.longest_row < 100
    packed = preview(recipe_of(base, chats, {"packing": True}, context=150), workspace)
    assert packed.estimate.memory["activations"] > short.estimate.memory["activations"]


def test_nothing_is_fetched_for_what_does_not_fit(base, chats, workspace, monkeypatch):
    """The folder has no weights, so that whoever wanted them would fail otherwise."""
    recipe = recipe_of(base, chats)
    assert check_before(recipe, workspace).fits
    monkeypatch.setattr("finetune.memory.free_memory", lambda device: 10_000)
    with pytest.raises(ValueError, match=r"GB are free on cpu now; .*choose a smaller base"):
        check_before(recipe, workspace)
    found = preview(recipe, workspace)
    assert not found.estimate.fits and found.largest_batch == 0 and "choose a smaller base" in found.notes[-1]
    assert estimating.PROCESS > 10_000


def test_in_a_terminal(base, chats, workspace, capsys, monkeypatch):
    parts = {"data": {"source": str(chats)}, "model": {"base": str(base)}, "train": {"context": 128, "device": "cpu"}}
    assert show(parts, workspace, count=1) == 0
    text = capsys.readouterr().out
    first = preview(build_recipe(parts), workspace, 1).shown[0]
    learnt = "".join(piece for piece, scored in zip(first.pieces, first.scored, strict=True) if scored)
    assert f"]{learnt}[" in text and "<|im_end|>" in learnt
    assert "45 to train on, 5 held out" in text and "memory    about" in text
    words = ["preview", "--base", str(base), "--data", str(chats), "--json", "--train.context", "128"]
    monkeypatch.setattr("sys.argv", [*words, "--workspace", str(workspace.root)])
    assert main() == 0
    record = json.loads(capsys.readouterr().out)
    assert record["train_examples"] == 45 and record["estimate"]["fits"] is True
    assert record["shown"][0]["scored"] == first.scored


def test_the_estimate_is_of_the_model_that_is_trained(base, chats, workspace):
    """The same folder with weights in it, and the base opened as training opens it."""
    from finetune.base import adapted, find

    recipe = recipe_of(base, chats, attn_implementation="sdpa")
    found = preview(recipe, workspace).estimate
    config = Qwen3Config.from_pretrained(base)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    model = adapted(find(recipe.model, workspace), recipe, open_tokenizer(base))
    assert model.get_nb_trainable_parameters() == (found.trainable, found.parameters)
    rows = padded([{"input_ids": np.arange(5), "labels": np.arange(5)}])
    batch = {name: torch.from_numpy(values) for name, values in rows.items()}
    assert torch.isfinite(model(**batch).loss)
