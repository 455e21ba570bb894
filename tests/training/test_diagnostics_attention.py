"""Attention statistics against the library's own weights, taken apart by plain loops, and against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from modeling import LabGPTConfig, LabGPTForCausalLM
from training import attention_probe, probe
from training.attention_probe import Repeats, Spread, measuring
from training.diagnostics import fetch
from training.probe import Probe, repeated_tokens

VOCABULARY, CONTEXT, HEADS = 40, 16, 4
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": HEADS}
LIBRARY = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "initializer_range": 0.5}
WINDOW = 5


def lab_gpt(**fields) -> nn.Module:
    return LabGPTForCausalLM(LabGPTConfig(**{**SIZES, "initializer_range": 0.5, **fields}))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": HEADS, "n_positions": 64, "initializer_range": 0.5}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes))


MODELS = {
    "labgpt": lab_gpt,
    "labgpt grouped": lambda: lab_gpt(num_key_value_heads=2),
    "labgpt window": lambda: lab_gpt(sliding_window=WINDOW),
    "labgpt alibi": lambda: lab_gpt(position_embedding="alibi"),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LIBRARY)),
    "qwen3 window": lambda: Qwen3ForCausalLM(
        Qwen3Config(**LIBRARY, head_dim=8, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0)
    ),
    "gpt2": gpt2,
}


def text() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, VOCABULARY, (6, CONTEXT)))


def layer_name(model: nn.Module, layer: int) -> str:
    return f"transformer.h.{layer}.attn" if model.config.model_type == "gpt2" else f"model.layers.{layer}.self_attn"


@torch.no_grad()
def eager_weights(model: nn.Module, ids: torch.Tensor) -> np.ndarray:
    """(L, B, H, T, T), as the library's written-out attention returns them."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    outputs = model(input_ids=ids, output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return torch.stack(outputs.attentions).double().numpy()


def share_of_entropy(rows: np.ndarray, window: int) -> float:
    """Of weights (B, T, T): the mean over queries that have a choice, each over that of equal weights."""
    shares = []
    for row in rows:
        for t in range(1, CONTEXT):
            entropy = -sum(p * math.log2(p) for p in row[t] if p > 0)
            shares.append(entropy / math.log2(min(t + 1, window)))
    return float(np.mean(shares))


@pytest.mark.parametrize("name", MODELS)
def test_entropy_of_every_head(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    found = fetch(Probe(model, text(), rows=4).measure())
    window = WINDOW if "window" in name else CONTEXT
    for layer, weights in enumerate(eager_weights(model, text())):
        expected = [share_of_entropy(weights[:, head], window) for head in range(HEADS)]
        assert found["attention_entropy", layer_name(model, layer)] == pytest.approx(expected, rel=1e-4)


def test_heads_are_measured_on_the_first_rows_alone(monkeypatch):
    torch.manual_seed(0)
    model = lab_gpt().eval()
    monkeypatch.setattr(probe, "ATTENTION_TOKENS", 2 * CONTEXT)
    found, first = (fetch(Probe(model, ids, rows=4).measure()) for ids in (text(), text()[:2]))
    for (name, part), value in found.items():
        if name in ("attention_entropy", "max_attention_logit"):
            assert value == first[name, part]
    assert found["logit_z", ""] != first["logit_z", ""]


@pytest.mark.parametrize("name", MODELS)
def test_what_heads_do_on_repeated_tokens(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    it = Probe(model, text(), rows=4)
    found, half = fetch(it.measure()), CONTEXT // 2
    back = {"induction_score": half - 1, "previous_token_score": 1, "duplicate_token_score": half}
    for layer, weights in enumerate(eager_weights(model, it.repeated)):
        for score, distance in back.items():
            expected = [
                np.mean([row[head, t, t - distance] for row in weights for t in range(half, CONTEXT)])
                for head in range(HEADS)
            ]
            assert found[score, layer_name(model, layer)] == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["labgpt grouped", "gpt2"])
def test_largest_score_from_the_projections(name):
    """Without rotation the score is q·k/√d of what the projections give."""
    torch.manual_seed(0)
    model = gpt2() if name == "gpt2" else lab_gpt(num_key_value_heads=2, position_embedding="none", qk_norm=False)
    model.eval()
    found, kept = fetch(Probe(model, text(), rows=4).measure()), {}
    attention = model.get_submodule(layer_name(model, 1))

    def keep(part):
        return lambda _module, _inputs, output: kept.update({part: output.detach().double().numpy()})

    parts = ["c_attn"] if name == "gpt2" else ["q_proj", "k_proj"]
    handles = [getattr(attention, part).register_forward_hook(keep(part)) for part in parts]
    with torch.no_grad():
        model(input_ids=text(), use_cache=False)
    for handle in handles:
        handle.remove()
    q, k = np.split(kept["c_attn"], 3, axis=-1)[:2] if name == "gpt2" else (kept["q_proj"], kept["k_proj"])
    q, k = (x.reshape(*x.shape[:2], -1, 4) for x in (q, k))  # (B, T, heads, D)
    largest = max(
        abs(q[b, t, h] @ k[b, s, h * k.shape[2] // HEADS]) / 2
        for b in range(len(q)) for h in range(HEADS) for t in range(CONTEXT) for s in range(t + 1)
    )  # fmt: skip
    assert found["max_attention_logit", layer_name(model, 1)] == pytest.approx(largest, rel=1e-4)


@pytest.mark.parametrize("fields", [{}, {"sliding_window": WINDOW}, {"position_embedding": "none"}])
def test_equal_weights_have_all_the_entropy_there_is(fields):
    model = lab_gpt(**fields)
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.q_proj.weight)
    found = fetch(Probe(model, text(), rows=4).measure())
    assert found["attention_entropy", "model.layers.0.self_attn"] == pytest.approx([1.0] * HEADS, abs=1e-6)
    assert found["max_attention_logit", "model.layers.0.self_attn"] == 0


def test_alibi_without_content_is_geometric():
    """Scores of slope·distance alone: the weights are a geometric series, their entropy is known."""
    model = lab_gpt(position_embedding="alibi")
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.q_proj.weight)
    found = fetch(Probe(model, text(), rows=4).measure())
    expected = []
    for head in range(1, HEADS + 1):
        slope, shares = 2 ** (-8 * head / HEADS), []
        for t in range(1, CONTEXT):
            p = np.exp(-slope * np.arange(t + 1))
            p /= p.sum()
            shares.append(-(p * np.log(p)).sum() / np.log(t + 1))
        expected.append(np.mean(shares))
    assert found["attention_entropy", "model.layers.1.self_attn"] == pytest.approx(expected, rel=1e-4)
    assert found["max_attention_logit", "model.layers.1.self_attn"] == 0  # the bias is no score of content


def test_a_planted_induction_head_scores_one():
    half, module = 6, nn.Identity()
    weights = torch.zeros(2, 2, 2 * half, 2 * half)
    for t in range(half, 2 * half):
        weights[:, 0, t, t - half + 1] = 1.0  # head 0: the token after the same one
        weights[:, 1, t, t - half] = 1.0  # head 1: the same one
    record = Repeats()
    record.add(module, None, None, weights)
    found = fetch(record.results({module: "it"}))
    assert found["induction_score", "it"] == [1, 0]
    assert found["duplicate_token_score", "it"] == [0, 1]
    assert found["previous_token_score", "it"] == [0, 0]


def test_linear_attention_is_left_blank():
    found = Probe(lab_gpt(attention="linear"), text(), rows=4).measure()
    assert not [name for name, _ in found if name.startswith(("attention", "max_attention", "induction"))]
    assert ("in_context_score", "") in found and ("residual_rms", "model.layers.0") in found


@pytest.mark.parametrize("name", MODELS)
def test_the_measured_attention_is_the_models_own(name, monkeypatch):
    torch.manual_seed(0)
    model, ids = MODELS[name]().eval(), repeated_tokens(VOCABULARY, CONTEXT)
    monkeypatch.setattr(attention_probe, "SCORES_AT_ONCE", 3 * HEADS * CONTEXT**2)  # in several slices
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        with measuring(model, Spread()):
            measured = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(measured, plain, rtol=1e-4, atol=1e-5)
