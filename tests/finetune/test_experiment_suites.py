"""What a run still knows at each checkpoint, against scores taken by hand; and where its heads look elsewhere."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from finetune.examples import ExamplesRecipe, open_examples
from finetune.experiment_attention import attention_moved
from finetune.experiment_suites import LIMIT, level_of, measure
from finetune.forgetting import EXPERIMENT
from finetune.qlora import run_here
from finetune.rendering import render
from finetune.scores import score
from hub.models import open_model


@pytest.fixture(scope="module")
def base(lab, tmp_path_factory) -> str:
    """The folder of a tiny Qwen3 with random weights."""
    tokenizer, folder = lab(), tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def chats(tmp_path) -> str:
    file = tmp_path / "chats.jsonl"
    said = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i % 3}."}] for i in range(20)]
    file.write_text("".join(json.dumps({"messages": one}) + "\n" for one in said))
    return str(file)


def test_each_checkpoint_is_asked_what_the_base_was(workspace, base, chats):
    train = {"steps": 4, "save_every": 2, "batch_size": 2, "learning_rate": 0.05, "context": 64, "threads": 1}
    parts = {
        "data": {"source": chats}, "model": {"base": base, "quantization": "none", "rank": 2},
        "train": train | {"warmup_steps": 0, "eval_sequences": 2, "checks": "skip"},
    }  # fmt: skip
    run = run_here(parts, workspace)
    run.update(inputs={"experiment": {"setting": 0, "seed": 0}})
    plan = EXPERIMENT.plan(base=base, data=chats, level="primer")
    found = json.loads(json.dumps(measure(run, plan, workspace, lambda what: None)))

    assert found["steps"] == [0, 2, 4] and found["level"] == "primer" and found["task"] is None
    opened = open_model(base), open_model(run.path, workspace)
    for place, (model, tokenizer) in zip((0, -1), opened, strict=True):
        by_hand = score(model, tokenizer, level="primer", limit=LIMIT)
        for name, suite in found["suites"].items():
            value = by_hand[name].value
            expected = math.log(value) if suite["kind"] == "perplexity" else value
            assert suite["values"][place] == pytest.approx(expected, abs=1e-4)
    assert found["suites"]["text"]["values"][0] != found["suites"]["text"]["values"][-1]
    assert found["loss"] == pytest.approx(answers_loss(*opened[0], chats, workspace), abs=1e-4)
    assert np.array(found["attention"]["new"]).shape == (2, 2) and np.max(found["attention"]["new"]) > 0


def answers_loss(model, tokenizer, chats: str, workspace) -> float:
    """Of the held-out examples, one by one, by the definition."""
    nats, count = 0.0, 0
    for example in open_examples(ExamplesRecipe(source=chats), workspace).split("validation"):
        one = render(example, tokenizer)
        ids = torch.from_numpy(one.ids).long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        losses = F.cross_entropy(logits, ids[1:], reduction="none")[torch.from_numpy(one.scored[1:])]
        nats, count = nats + losses.sum().item(), count + len(losses)
    return nats / count


def test_a_model_looks_where_it_looks_itself(base):
    opened = open_model(base)
    example = {"messages": [{"role": "user", "content": "7?"}, {"role": "assistant", "content": "1."}]}
    same = attention_moved(opened, opened, "primer", [example])
    assert same["layers"] == [0, 1] and np.max(same["old"]) == np.max(same["new"]) == 0.0


def test_heads_that_cannot_be_paired_are_said_to_be_so(base, lab, tmp_path):
    tokenizer = lab()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512,
    )  # fmt: skip
    other = Qwen3ForCausalLM(config).eval(), tokenizer
    example = {"messages": [{"role": "user", "content": "7?"}, {"role": "assistant", "content": "1."}]}
    assert "heads cannot be paired" in attention_moved(open_model(base), other, "primer", [example])["missing"]


def test_a_level_that_there_is_none_of_is_said_before_anything_is_trained():
    with pytest.raises(ValueError, match="--level 'genral' is none of the suites'; did you mean 'general'"):
        EXPERIMENT.plan(level="genral")


def test_who_is_asked_what():
    assert level_of(EXPERIMENT.plan()) == "primer"
    assert level_of(EXPERIMENT.plan(base="org/model")) == "general"
    assert level_of(EXPERIMENT.plan(base="org/model", level="primer")) == "primer"
