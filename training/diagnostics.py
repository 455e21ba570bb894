"""What a step did to the model: update ratio and dead units, measured every `diagnose_every` steps.

Definitions as the field has them; each costs a copy of the weights or a forward pass, hence the cadence.
"""

import re
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# The last matrix of a feed-forward block, by the names the library's models give it: its input are the activations.
DOWN_PROJECTION = re.compile(r"\.mlp\.(down_proj|c_proj|fc2|dense_4h_to_h)$")
RELU_FAMILY = ("relu", "relu2", "relu_squared")
NEARLY_ZERO = 1e-3  # of the layer's RMS: a GELU or SiLU unit is never exactly 0


class UpdateRatio:
    """std(p_after - p_before) / std(p_before) of each weight matrix, for one real optimizer step.

    The run's figure is the median over matrices; about 1e-3 is healthy. Matrices that are still constant (zero at
    the start) have no scale to compare with and are left out.
    """

    def __init__(self, model: nn.Module):
        self.parameters = [p for p in model.parameters() if p.ndim >= 2 and p.requires_grad]
        self.before = [p.detach().clone() for p in self.parameters]

    def measure(self) -> float | None:
        ratios = [
            ((after.detach() - before).std() / before.std()).item()
            for after, before in zip(self.parameters, self.before, strict=True)
            if before.std() > 0
        ]
        return statistics.median(ratios) if ratios else None


@torch.no_grad()
def dead_units(model: nn.Module, input_ids: Tensor) -> dict[str, float]:
    """Percentage of feed-forward units that are silent on every token of a probe batch, per layer and `total`.

    ReLU family: the unit's output is 0 on every token. GELU and SiLU: its largest magnitude stays below 1e-3 of the
    layer's RMS. Empty where the model has no feed-forward block of a known name.

    Args:
        input_ids: (B, T), 4,096 tokens or more, the same at each measurement.
    """
    activation = getattr(model.config, "hidden_act", None) or getattr(model.config, "activation_function", "")
    peaks: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            units = inputs[0].detach().flatten(0, -2)  # (B*T, units)
            peaks[name] = units.abs().amax(0)
            squares[name] = units.float().square().mean()

        return hook

    blocks = {name: module for name, module in model.named_modules() if DOWN_PROJECTION.search(name)}
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in blocks.items()]
    try:
        with evaluating(model):
            model(input_ids=input_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    dead = {}
    for name, peak in peaks.items():
        threshold = 0.0 if activation in RELU_FAMILY else NEARLY_ZERO * squares[name].sqrt()
        dead[name] = (peak <= threshold).float().mean().item() * 100
    return {**dead, "total": statistics.mean(dead.values())} if dead else {}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, whatever mode it was afterwards: dropout must not touch a measurement."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
