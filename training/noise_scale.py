"""The gradient noise scale tr(Σ)/|G|²: at a batch of so many tokens, noise and signal of the gradient are equal.

May import nothing of ours. Two batch sizes tell both apart (arXiv:1812.06162, appendix A), since a gradient over B
tokens has E|G_B|² = |G|² + tr(Σ)/B. Each estimate alone is mostly noise, so both are smoothed first and divided then.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class NoiseScale:
    """Smoothed signal |G|² and noise tr(Σ), from pairs of a small and a big batch.

    Args:
        decay: of both means, a measurement; those of micro-batches come each step, those of `split_batch` seldom.
        state: what `state()` gave, to go on from.
    """

    def __init__(self, decay: float, state: dict | None = None):
        self.decay = decay
        self.go_back(state)

    def go_back(self, state: dict | None) -> None:
        """To what `state()` gave, or to the beginning."""
        begun = state or {}
        self.signal, self.noise, self.count = (begun.get(name, 0) for name in ("signal", "noise", "count"))

    def add(self, small: float, big: float, tokens_small: float, tokens_big: float) -> None:
        """|G|² of a mean over so many tokens, and over the more tokens that these are part of."""
        signal = (tokens_big * big - tokens_small * small) / (tokens_big - tokens_small)
        noise = (small - big) / (1 / tokens_small - 1 / tokens_big)
        if math.isfinite(signal) and math.isfinite(noise):
            self.signal += (1 - self.decay) * (signal - self.signal)
            self.noise += (1 - self.decay) * (noise - self.noise)
            self.count += 1

    @property
    def tokens(self) -> float | None:
        """None while there is nothing to divide: no measurement, or a signal still drowned in noise.

        Both means began at zero and are too small by the same factor, which the quotient does not see.
        """
        return self.noise / self.signal if self.count and self.signal > 0 and self.noise > 0 else None

    def state(self) -> dict:
        return {"signal": self.signal, "noise": self.noise, "count": self.count}


def first_micro_batch(parameters: list[nn.Parameter], scored: Tensor, scored_here: Tensor, processes: int) -> Tensor:
    """(|G|² of the first micro-batch alone, its tokens, the whole step's), from the gradients behind its backward.

    Those are a sum over its tokens, divided by the whole step's and multiplied by the number of processes.

    Args:
        scored: tokens of the whole step, over all processes; `scored_here` those of this micro-batch.
    """
    norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
    mean = torch.stack(norms).norm() * scored / (scored_here * processes)
    return torch.stack((mean.square().float(), scored_here.float(), scored.float()))


def split_batch(
    model: nn.Module, pieces: list[dict[str, Tensor]], loss_of: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[Tensor, Tensor]:
    """(mean |G|² of the pieces, |G|² of all of them together), pieces being of equal size; no `.grad` is touched.

    Args:
        loss_of: a piece -> its mean loss.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, small = None, 0.0
    for piece in pieces:
        gradients = torch.autograd.grad(loss_of(piece), parameters, allow_unused=True)
        gradients = [g if g is not None else torch.zeros_like(p) for g, p in zip(gradients, parameters, strict=True)]
        small = small + squared_norm(gradients)
        total = gradients if total is None else torch._foreach_add(total, gradients)
    return small / len(pieces), squared_norm(total) / len(pieces) ** 2


def squared_norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).square().sum()
