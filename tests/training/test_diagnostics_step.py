"""What a step did: update ratio, gradient variance, noise scale, z-loss, spikes; against float64 and closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from data.tokens import as_batch
from modeling import LabGPTConfig, LabGPTForCausalLM
from training import utilisation
from training.diagnostics import fetch, figures
from training.loop import losses_of
from training.noise_scale import NoiseScale, first_micro_batch, split_batch
from training.recipe import TrainRecipe
from training.spikes import DEVIATIONS, SMALLEST_DEVIATION, WINDOW, Spikes
from training.step_measures import StepMeasures

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "labgpt": lambda: LabGPTForCausalLM(LabGPTConfig(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=32, tie_word_embeddings=True)),
}


def ids(rows: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 30, (rows, 9)))


def float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


@pytest.mark.parametrize("name", MODELS)
def test_a_real_step(name):
    """Every measure of one clipped AdamW step, from copies of the weights before and behind it."""
    torch.manual_seed(0)
    model = MODELS[name]()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "lr": 3e-3}, {"params": vectors, "lr": 1e-2}])
    before = {key: float64(p) for key, p in model.named_parameters()}
    measures = StepMeasures(model, optimizer)
    model(input_ids=ids(), labels=ids()).loss.backward()
    gradients = {key: float64(p.grad) for key, p in model.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    measures.gradients((0.1 / (norm + 1e-6)).clamp(max=1.0))
    optimizer.step()
    row = figures(fetch(measures.results()))

    ratios, like_sgd = [], []
    for key, p in model.named_parameters():
        part = key.removesuffix(".weight")
        assert row[f"grad_variance/{part}"] == pytest.approx(gradients[key].var(ddof=1), rel=1e-4)
        if p.ndim < 2 or not before[key].any():  # LabGPT's output projections start at zero
            assert f"update_ratio/{part}" not in row
            continue
        ratios.append((float64(p) - before[key]).std() / before[key].std())
        like_sgd.append(3e-3 * gradients[key].std() / before[key].std())
        assert row[f"update_ratio/{part}"] == pytest.approx(ratios[-1], rel=1e-2)  # float32 differences of near numbers
        assert row[f"update_ratio_sgd/{part}"] == pytest.approx(like_sgd[-1], rel=1e-2)
        assert row[f"weight_rms/{part}"] == pytest.approx(math.sqrt((float64(p) ** 2).mean()), rel=1e-4)
    assert row["update_ratio"] == pytest.approx(np.median(ratios), rel=1e-2)
    assert row["update_ratio_sgd"] == pytest.approx(np.median(like_sgd), rel=1e-2)
    assert row["grad_variance"] == pytest.approx(np.mean([g.var(ddof=1) for g in gradients.values()]), rel=1e-4)


def test_update_ratio_of_a_known_step():
    torch.manual_seed(0)
    model = nn.Linear(50, 40)
    measures = StepMeasures(model, torch.optim.SGD(model.parameters()))
    with torch.no_grad():
        model.weight.mul_(1.003)  # every element moves by 0.3 % of itself, so its spread does
    assert fetch(measures.results())["update_ratio", "weight"] == pytest.approx(3e-3, rel=1e-3)


def test_noise_scale_of_a_known_source():
    """Gradients g + ε with g and the covariance of ε known: tr(Σ)/|g|² comes out, whatever the two batch sizes."""
    random, g, sigma = np.random.default_rng(0), np.full(50, 0.3), 2.0
    expected = 50 * sigma**2 / (g**2).sum()
    for small, big in ((1, 4), (8, 64)):
        noise = NoiseScale(decay=0.999)
        for _ in range(20_000):
            samples = g + sigma / math.sqrt(small) * random.standard_normal((big // small, 50))
            noise.add((samples[0] ** 2).sum(), (samples.mean(0) ** 2).sum(), small, big)
        assert noise.tokens == pytest.approx(expected, rel=0.15)


def test_noise_scale_smooths_before_it_divides_and_goes_on():
    noise = NoiseScale(decay=0.5)
    assert noise.tokens is None
    pairs = [(5.0, 2.0), (9.0, 3.0), (4.0, 3.0)]
    for small, big in pairs:
        noise.add(small, big, 10, 40)
    signals = [(40 * big - 10 * small) / 30 for small, big in pairs]
    noises = [(small - big) / (1 / 10 - 1 / 40) for small, big in pairs]
    weights = [0.125, 0.25, 0.5]  # the newest counts most
    assert noise.tokens == pytest.approx(np.dot(weights, noises) / np.dot(weights, signals))
    again = NoiseScale(0.5, noise.state())
    for one in (noise, again):
        one.add(6.0, 2.0, 10, 40)
    assert again.tokens == noise.tokens
    noise.add(1000.0, 1.0, 10, 40)  # the signal is drowned: no figure rather than a wrong one
    assert noise.tokens is None


@pytest.mark.parametrize("name", MODELS)
def test_split_batch_is_each_pieces_own_gradient(name):
    torch.manual_seed(0)
    model, pieces = MODELS[name](), [as_batch(part) for part in ids().chunk(4)]

    def loss_of(piece):
        return nn.functional.cross_entropy(
            model(input_ids=piece["input_ids"]).logits.flatten(0, 1), piece["labels"].flatten()
        )

    small, big = split_batch(model, pieces, loss_of)
    assert all(p.grad is None for p in model.parameters())
    gradients = []
    for piece in pieces:
        model.zero_grad()
        loss_of(piece).backward()
        gradients.append(np.concatenate([float64(p.grad).ravel() for p in model.parameters()]))
    assert small.item() == pytest.approx(np.mean([(g**2).sum() for g in gradients]), rel=1e-4)
    assert big.item() == pytest.approx((np.mean(gradients, axis=0) ** 2).sum(), rel=1e-4)


def test_first_micro_batch_is_undone_to_a_mean():
    """Of 4 scored tokens in 10, over 2 processes: what backward left is 2·(sum over 4)/10."""
    p = nn.Parameter(torch.zeros(3))
    per_token = torch.randn(4, 3)
    p.grad = 2 * per_token.sum(0) / 10
    found = first_micro_batch([p], torch.tensor(10), torch.tensor(4), processes=2)
    assert found.tolist() == pytest.approx([float(per_token.mean(0).square().sum()), 4, 10], rel=1e-5)


def test_z_loss_is_right_under_accumulation():
    torch.manual_seed(0)
    model, recipe = MODELS["labgpt"](), TrainRecipe(z_loss=0.1)
    inputs, labels = ids()[:, :-1], ids()[:, 1:].clone()
    labels[0, :5] = -100  # micro-batches of different numbers of scored tokens
    scored = (labels != -100).sum()
    loss, plain = losses_of(model, {"input_ids": inputs, "labels": labels}, scored, recipe)
    logits = float64(model(input_ids=inputs).logits)
    z = np.log(np.exp(logits).sum(-1))[labels.numpy() != -100]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log_p, labels.clamp_min(0).numpy()[..., None], -1)[..., 0][labels.numpy() != -100]
    assert plain.item() == pytest.approx(nats.mean(), rel=1e-5)
    assert loss.item() == pytest.approx(nats.mean() + 0.1 * (z**2).mean(), rel=1e-5)
    whole = torch.autograd.grad(loss, list(model.parameters()))
    halves = [{"input_ids": x, "labels": y} for x, y in zip(inputs.chunk(2), labels.chunk(2), strict=True)]
    parts = [losses_of(model, half, scored, recipe)[0] for half in halves]
    torch.testing.assert_close(torch.autograd.grad(sum(parts), list(model.parameters())), whole, rtol=1e-4, atol=1e-6)
    recorded, minimised = losses_of(model, {"input_ids": inputs, "labels": labels}, scored, TrainRecipe())
    assert recorded is minimised and recorded.item() == pytest.approx(plain.item(), rel=1e-5)


def test_spikes_are_those_of_the_definition():
    random = np.random.default_rng(0)
    losses = [*(3 + 0.1 * random.standard_normal(80)), 5.0, *(3 + 0.1 * random.standard_normal(80))]
    watch, found = Spikes(), []
    for step, loss in enumerate(losses, start=1):
        spike = watch.judge(step, loss)
        if step <= WINDOW:
            assert spike is None
            continue
        last = np.array(losses[step - 1 - WINDOW : step - 1])
        limit = np.median(last) + DEVIATIONS * np.median(np.abs(last - np.median(last)))
        assert (spike is not None) == (loss > limit)
        if spike:
            assert spike.limit == pytest.approx(limit)
            found.append(step)
    assert 81 in found and len(found) <= 3


def test_a_flat_or_falling_curve_has_no_spikes_and_a_nan_is_one():
    flat = Spikes(0.5 for _ in range(60))
    assert flat.judge(61, 0.5 + 0.9 * DEVIATIONS * SMALLEST_DEVIATION) is None
    assert flat.judge(62, 0.5 + 1.1 * DEVIATIONS * SMALLEST_DEVIATION)
    falling = Spikes()
    assert not any(falling.judge(step, 7 * math.exp(-step / 50)) for step in range(200))
    assert Spikes().judge(1, float("nan")).step == 1


def test_utilisation_is_flops_over_the_peak(monkeypatch):
    monkeypatch.setattr(utilisation, "peak", lambda *machine: 1e9)
    recipe = SimpleNamespace(context=8, device="cpu", precision="fp32", threads=1)
    model = MODELS["llama"]()  # the head is the embedding: its product counts, its table does not
    inside = sum(p.numel() for name, p in model.named_parameters() if "layers" in name or name.endswith("norm.weight"))
    flops = 6 * (inside + 30 * 16) + 12 * 1 * 16 * 8
    assert utilisation.per_token(model, recipe, processes=2) == pytest.approx(flops / 2e9)
