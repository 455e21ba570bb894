"""Texts sampled while training: drawn from the model's whole distribution, ended where it ends them, free of traces."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from modeling import LabGPTConfig, LabGPTForCausalLM
from training.evaluate import sample_texts

LETTERS = "_abcdef"  # token 0 begins and ends a text
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
COUNT = 20_000


class Tokenizer(SimpleNamespace):
    def batch_decode(self, rows, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(LETTERS[i] for i in row.tolist() if i) for row in rows]


@pytest.fixture(params=["labgpt", "gpt2"])
def model(request):
    torch.manual_seed(1)
    if request.param == "labgpt":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
        config = LabGPTConfig(vocab_size=len(LETTERS), hidden_dropout=0.5, initializer_range=0.5, **sizes, **SPECIAL)
        return LabGPTForCausalLM(config).train()
    config = GPT2Config(vocab_size=len(LETTERS), n_embd=16, n_layer=2, n_head=2, n_positions=16, **SPECIAL)
    model = GPT2LMHeadModel(config).train()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far from uniform
    return model


def sample(model, count: int = COUNT, max_new_tokens: int = 3, seed: int = 0) -> list[str]:
    return sample_texts(model, Tokenizer(**SPECIAL), count, max_new_tokens, seed)


def probabilities(model, text: str) -> torch.Tensor:
    """Of the next token (V,), by one plain forward pass in evaluation mode."""
    model.eval()
    ids = torch.tensor([[0, *(LETTERS.index(letter) for letter in text)]])
    with torch.no_grad():
        p = model(input_ids=ids).logits[0, -1].softmax(-1)
    model.train()
    return p


def test_texts_are_drawn_from_the_whole_distribution(model):
    """Every text of up to two letters comes as often as the model says, ends among them, at temperature 1."""
    begin = probabilities(model, "")
    expected = {"": begin[0].item()}
    for i in range(1, len(LETTERS)):
        after = probabilities(model, LETTERS[i])
        expected[LETTERS[i]] = (begin[i] * after[0]).item()
        for j in range(1, len(LETTERS)):
            expected[LETTERS[i] + LETTERS[j]] = (begin[i] * after[j]).item()
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    assert max(expected.values()) > 3 * min(expected.values())  # a flat one would show nothing
    texts = sample(model, max_new_tokens=2)
    for text, p in expected.items():
        error = 4.5 * (p * (1 - p) / COUNT) ** 0.5 + 1 / COUNT  # 43 comparisons: one in 4,000 seeds would fail
        assert abs(texts.count(text) / COUNT - p) < error, text
    assert set(texts) <= set(expected)


def test_a_text_ends_where_the_model_ends_it(model):
    texts = sample(model, count=300, max_new_tokens=12)
    lengths = {len(text) for text in texts}
    assert min(lengths) < 4 and max(lengths) <= 12
    assert all("_" not in text for text in texts)


def test_sampling_leaves_no_trace(model):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = sample(model, count=20)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert sample(model, count=20) == first  # the seed decides, not dropout
    assert sample(model, count=20, seed=1) != first
    ids = torch.randint(1, len(LETTERS), (2, 8))
    model(input_ids=ids, labels=ids).loss.backward()  # nothing that was made while sampling is in the way


def test_sampling_while_training_in_bf16(pretrain, milk, tmp_path):
    flags = [
        *("--train.steps", "4", "--train.sample_every", "2", "--train.precision", "bf16", "--train.threads", "1"),
        *("--train.context", "32", "--train.batch_size", "4", "--train.compile", "false", "--data.tokenizer", "char"),
        *("--model.hidden_size", "16", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2"),
        *("--model.position_embedding", "learned"),  # a rotation would widen the keys to float32
    ]  # fmt: skip
    code, output = pretrain(tmp_path, *flags, "--data.corpus", str(milk))
    assert code == 0, output
    (samples,) = tmp_path.glob("runs/*/samples.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [row["step"] for row in rows][:2] == [2, 4] and all(row["temperature"] == 1.0 for row in rows)
