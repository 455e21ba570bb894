"""What the probe sees, against the library's own outputs and plain float64 arithmetic, on LabGPT and other models."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from modeling import LabGPTConfig, LabGPTForCausalLM
from training.diagnostics import fetch, figures
from training.probe import Probe, in_context_score, repeated_tokens

VOCABULARY, CONTEXT = 40, 24
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
LIBRARY = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}


def lab_gpt(**fields) -> nn.Module:
    return LabGPTForCausalLM(LabGPTConfig(**{**SIZES, "hidden_act": "relu", "initializer_range": 0.3, **fields}))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes))


MODELS = {
    "labgpt": lab_gpt,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LIBRARY, initializer_range=0.3)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LIBRARY, head_dim=8, initializer_range=0.3)),
    "gpt2": gpt2,
}
# where a model keeps the result of its activation function, and what its units are: that, or a gated product
UNITS = {
    "labgpt": ("model.layers.{}.mlp.down_proj", "model.layers.{}"),
    "llama": ("model.layers.{}.mlp.down_proj", "model.layers.{}"),
    "qwen3": ("model.layers.{}.mlp.down_proj", "model.layers.{}"),
    "gpt2": ("transformer.h.{}.mlp.c_proj", "transformer.h.{}"),
}


def text() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, VOCABULARY, (11, CONTEXT)))


@pytest.fixture(params=MODELS)
def case(request):
    """Name, model, what the probe found (rows taken four at a time), and the library's own outputs."""
    torch.manual_seed(0)
    model = MODELS[request.param]().train()
    found = fetch(Probe(model, text(), rows=4).measure())
    assert model.training
    model.eval()
    with torch.no_grad():
        return request.param, model, found, model(input_ids=text(), output_hidden_states=True, use_cache=False)


def test_logits(case):
    _, _, found, outputs = case
    logits = outputs.logits.double().numpy()
    assert found["logit_max", ""] == pytest.approx(np.abs(logits).max(), rel=1e-5)
    assert found["logit_z", ""] == pytest.approx(np.log(np.exp(logits).sum(-1)).mean(), rel=1e-5)


def test_residual_stream(case):
    """The library lists the stream before each layer; behind the last one it has gone through the final norm."""
    name, _, found, outputs = case
    stream = outputs.hidden_states[1].double().numpy()
    assert found["residual_rms", UNITS[name][1].format(0)] == pytest.approx(math.sqrt((stream**2).mean()), rel=1e-5)
    assert ("residual_rms", UNITS[name][1].format(1)) in found


def activations(name: str, model: nn.Module) -> np.ndarray:
    """(tokens, units) of the first layer, computed from the stream before it by the block's own parts."""
    kept = {}
    block = (model.transformer.h if name == "gpt2" else model.model.layers)[0]
    handle = block.mlp.register_forward_pre_hook(lambda _, inputs: kept.update(x=inputs[0]))
    with torch.no_grad():
        model(input_ids=text(), use_cache=False)
        handle.remove()
        x, mlp = kept["x"], block.mlp
        if name == "gpt2":
            units = mlp.act(mlp.c_fc(x))
        elif name == "labgpt":
            units = mlp.up_proj(x).clamp_min(0)
        else:
            units = nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
    return units.flatten(0, 1).double().numpy()


def test_units(case):
    name, model, found, _ = case
    units = activations(name, model)
    part = UNITS[name][0].format(0)
    assert found["inactive_frac", part] == pytest.approx((units <= 0).mean(), abs=1e-6)
    limit = 0.0 if name == "labgpt" else 1e-3 * math.sqrt((units**2).mean())
    dead = [all(abs(value) <= limit for value in unit) for unit in units.T]
    assert found["dead_perc", part] == pytest.approx(100 * sum(dead) / len(dead))


@pytest.mark.parametrize("act", ["relu2", "gelu"])
def test_dead_units_are_found(act):
    torch.manual_seed(0)
    model = lab_gpt(hidden_act=act, mlp_bias=True, initializer_range=None)
    assert figures(fetch(Probe(model, text(), rows=4).measure()))["dead_perc"] == 0
    with torch.no_grad():  # 16 of the 64 units of the second layer never rise above zero
        model.model.layers[1].mlp.up_proj.bias[:16] = -100.0
    row = figures(fetch(Probe(model, text(), rows=4).measure()))
    assert row["dead_perc/model.layers.0.mlp.down_proj"] == 0
    assert row["dead_perc/model.layers.1.mlp.down_proj"] == pytest.approx(25.0)
    assert row["dead_perc"] == pytest.approx(12.5)


def test_in_context_score_is_the_difference_of_the_halves_losses():
    ids, logits = repeated_tokens(VOCABULARY, CONTEXT), torch.randn(8, CONTEXT, VOCABULARY)
    halves = [[], []]
    for row, scores in zip(ids.tolist(), logits.double().numpy(), strict=True):
        for t in range(1, CONTEXT):
            if t != CONTEXT // 2:  # the second half's first token cannot be known
                p = np.exp(scores[t - 1]) / np.exp(scores[t - 1]).sum()
                halves[t > CONTEXT // 2].append(-math.log(p[row[t]]))
    expected = np.mean(halves[0]) - np.mean(halves[1])
    assert in_context_score(list(logits.split(3)), ids).item() == pytest.approx(expected, rel=1e-5)


def test_repeated_tokens_come_twice_and_differ():
    ids = repeated_tokens(VOCABULARY, CONTEXT)
    assert ids.shape == (8, CONTEXT)
    assert torch.equal(ids[:, : CONTEXT // 2], ids[:, CONTEXT // 2 :])
    assert all(len(set(row.tolist())) == CONTEXT // 2 for row in ids)
    assert len(repeated_tokens(VOCABULARY, 3)) == 0  # one token is no text to copy


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = lab_gpt(hidden_dropout=0.5).train()
    weights, before = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    Probe(model, text(), rows=4).measure()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(not module._forward_pre_hooks and not module._backward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert model.config._attn_implementation == "sdpa"


def test_figures_of_the_run_from_those_of_its_parts():
    values = {
        ("update_ratio", "a"): 1.0, ("update_ratio", "b"): 5.0, ("update_ratio", "c"): 2.0,
        ("attention_entropy", "l0"): [0.2, 0.4], ("attention_entropy", "l1"): [0.6, 0.8],
        ("induction_score", "l0"): [0.1, 0.9], ("induction_score", "l1"): [0.3, 0.2],
        ("residual_rms", "l0"): 1.0, ("residual_rms", "l1"): 3.0, ("logit_max", ""): 7.0,
    }  # fmt: skip
    row = figures(values)
    assert row["update_ratio"] == 2.0 and row["update_ratio/b"] == 5.0
    assert row["attention_entropy"] == pytest.approx(0.5) and row["attention_entropy/l1"] == [0.6, 0.8]
    assert row["induction_score"] == 0.9 and row["residual_rms"] == 3.0 and row["logit_max"] == 7.0
    assert fetch({("x", ""): torch.tensor(float("nan")), ("y", ""): torch.tensor([1.0, 2.0])}) == {("y", ""): [1, 2]}
