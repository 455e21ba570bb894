"""Muon against torch's own, its orthogonalisation against the SVD, and which parameter gets which treatment."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.optimizers import Muon, build_optimizer, orthogonalize, parameter_groups
from training.recipe import TrainRecipe

TORCH_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5  # what torch.optim.Muon iterates with


def tiny_llama(tied: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_orthogonalize_brings_singular_values_to_one(shape):
    torch.manual_seed(0)
    # singular values over three decades: the range Polar Express is made for
    u, _, v = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    spectrum = torch.logspace(0, -2, min(shape))
    result = orthogonalize(u * spectrum @ v)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.85 and values.max() < 1.15
    # and leaves the singular vectors: the polar factor is U Vᵀ
    assert torch.dist(result, u @ v) / torch.linalg.norm(u @ v) < 0.12


@pytest.mark.parametrize("shape", [(24, 24), (24, 60), (60, 24)])
def test_muon_walks_with_torch(shape):
    """Same coefficients, same gradients: apart only by torch's bf16 (8 bits of mantissa)."""
    torch.manual_seed(1)
    weights = torch.randn(shape)
    ours, theirs = nn.Parameter(weights.clone()), nn.Parameter(weights.clone())
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    muon = Muon([{"params": [ours], "use_muon": True, **settings}], coefficients=TORCH_COEFFICIENTS)
    reference = torch.optim.Muon([theirs], nesterov=True, ns_coefficients=TORCH_COEFFICIENTS[0], ns_steps=5, **settings)
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    moved = torch.dist(ours, weights)
    assert torch.dist(ours, theirs) < 0.03 * moved


def test_batched_matrices_step_as_alone():
    torch.manual_seed(2)
    weights, gradients = torch.randn(3, 8, 20), torch.randn(3, 8, 20)
    together = [nn.Parameter(w.clone()) for w in weights]
    alone = [nn.Parameter(w.clone()) for w in weights]
    for parameters in (together, alone):
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g.clone()
    Muon([{"params": together, "use_muon": True, "lr": 0.1}]).step()
    for p in alone:
        Muon([{"params": [p], "use_muon": True, "lr": 0.1}]).step()
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_the_rest_is_torchs_adamw():
    torch.manual_seed(3)
    weights = torch.randn(10, 4)
    ours, theirs = nn.Parameter(weights.clone()), nn.Parameter(weights.clone())
    settings = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1}
    pair = Muon([{"params": [ours], **settings}]), torch.optim.AdamW([theirs], **settings)
    for _ in range(4):
        gradient = torch.randn(10, 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in pair:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_one_group(tied):
    model = tiny_llama(tied)
    matrices, embeddings, vectors = parameter_groups(model)
    assert sorted(map(id, matrices + embeddings + vectors)) == sorted(map(id, model.parameters()))
    assert len(matrices) == 2 * 7  # q, k, v, o, gate, up, down of two layers
    assert len(embeddings) == (1 if tied else 2)
    assert all(p.ndim == 1 for p in vectors)


def test_muon_state_survives_saving():
    model = tiny_llama()
    recipe = TrainRecipe(optimizer="muon")
    optimizer = build_optimizer(model, recipe)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    other = build_optimizer(model, recipe)
    other.load_state_dict(optimizer.state_dict())
    for p in model.parameters():
        for key, value in optimizer.state[p].items():
            assert torch.equal(value, other.state[p][key]), key


def test_overfits_with_each_optimizer():
    ids = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(4))
    for name, rate in (("adamw", 1e-2), ("muon", 2e-2)):
        torch.manual_seed(5)
        model = tiny_llama()
        optimizer = build_optimizer(
            model, TrainRecipe(optimizer=name, learning_rate=rate, embedding_learning_rate=1e-2)
        )
        for _ in range(60):
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss.item() < 0.1, name
