"""How the next token is chosen: from a model's logits to the probabilities it is drawn from.

Imports torch alone. The settings act in the library's order: repetition penalty, temperature, top-k, top-p.
docs/generate.md has the same as formulas.

Shapes: V vocabulary, T tokens so far.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores of some hundreds, divided or multiplied by these, stay finite in float32; what is beyond changes nothing more.
LEAST_TEMPERATURE = 1e-4
PENALTIES = (0.01, 100.0)


@dataclass(frozen=True)
class Sampling:
    """The settings. Left alone, they draw from the model's own distribution."""

    greedy: bool = False  # always the likeliest token; nothing is drawn
    temperature: float = 1.0  # below 1 sharper, above 1 flatter
    top_k: int | None = None  # only the k likeliest tokens; None: all
    top_p: float | None = None  # only the fewest tokens that hold this share of the probability; None: all
    repetition_penalty: float = 1.0  # above 1, tokens that occurred already become less likely; below 1, more

    def __post_init__(self):
        if not LEAST_TEMPERATURE <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature:g} must be {LEAST_TEMPERATURE:g} or more; for no chance at all, "
                "choose greedy"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p:g} must be above 0 and at most 1")
        if not PENALTIES[0] <= self.repetition_penalty <= PENALTIES[1]:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty:g} must be from {PENALTIES[0]:g} to {PENALTIES[1]:g}, "
                "where 1 changes nothing"
            )
        if self.greedy and (self.temperature, self.top_k, self.top_p) != (1.0, None, None):
            raise ValueError("greedy draws nothing: leave temperature, top_k and top_p away, or greedy")


def distribution(logits: Tensor, seen: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities (V,) that the next token is drawn from.

    Args:
        logits: (V,) the model's scores for the next token.
        seen: (T,) the tokens so far, the prompt's included.
    """
    logits = penalize_repetition(logits.float(), seen, sampling.repetition_penalty)
    if sampling.greedy:
        return F.one_hot(logits.argmax(), len(logits)).float()
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:  # at 1, rounding alone would cut something off
        logits = keep_top_p(logits, sampling.top_p)
    return logits.softmax(-1)


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Lower the score of every token that occurred (CTRL, arXiv:1909.05858, section 4.1).

    The paper divides by the penalty, which would raise a score below zero: those are multiplied.
    """
    scores = logits[seen]
    return logits.scatter(0, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Only the k likeliest tokens stay possible (arXiv:1805.04833), and those level with the k-th."""
    kth = logits.topk(min(k, len(logits))).values[-1]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Only the nucleus stays possible: the fewest tokens that together have probability p (arXiv:1904.09751)."""
    ordered, tokens = logits.sort(descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what the likelier tokens have together
    outside = before >= p  # never the first: nothing comes before it
    return logits.masked_fill(torch.zeros_like(outside).scatter(0, tokens, outside), -math.inf)
