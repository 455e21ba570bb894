"""Two models side by side on one prompt: where their heads look, what their layers would say, what each token costs.

Of ours here `interpret.compare_alignment`, `attention`, `lens`, `record` and `writing`. A base and what was fine-tuned
from it, two revisions of a run, or any two models whose tokens can be aligned. What cannot be compared is left out with
the reason. docs/compare.md has the formulas.

Shapes: U units (aligned tokens), L layers that attend, H heads, R rows of the lens, V vocabulary.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.console import cli
from interpret.attention import Attention, patterns
from interpret.compare_alignment import Alignment, Side, align
from interpret.lens import Readout, row_names, streams
from interpret.prompt import MAX_TOKENS
from interpret.record import record
from interpret.structure import structure
from interpret.writing import DIVERGED, Token, spell, write

LIKELIEST = 5  # next tokens told where somebody looks closer
Opened = tuple[torch.nn.Module, object]  # a model and its tokenizer, as `hub.models.open_model` gives them


@dataclass(frozen=True)
class Comparison:
    """One prompt in two models.

    Attributes:
        losses: nats of each unit in the first and the second model, (2, U); NaN for what begins the text.
        heads: Jensen-Shannon divergence of each head's attention, (L, H), 0 to 1; None where heads cannot be paired.
        layers: the numbers of the layers that attend.
        lens: KL(first ‖ second) of what each layer would say next, in nats, (R, U); None likewise. The first row is
            the stream before all layers, the last row the models themselves.
        rows: the names of the lens's rows.
        missing: why, by `heads` or `lens`, where it is None.
    """

    tokens: Alignment
    losses: np.ndarray
    heads: np.ndarray | None = None
    layers: list[int] = field(default_factory=list)
    lens: np.ndarray | None = None
    rows: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def mean_losses(self) -> tuple[float, float]:
        """Of the units that both models foretell, in nats per unit."""
        first, second = np.nanmean(self.losses, axis=1)
        return float(first), float(second)


def compare(first: Opened, second: Opened, prompt: str, max_tokens: int = MAX_TOKENS) -> Comparison:
    """Read `prompt` in both. Raises ValueError where their tokens cannot be aligned."""
    tokens = align(first, second, prompt, max_tokens)
    sides = _sides(first, second, tokens)
    one, other = flows = [streams(model, torch.tensor([side.ids])) for (model, _), side in sides]
    losses = [unit_losses(model, flow[-1][0], side) for ((model, _), side), flow in zip(sides, flows, strict=True)]
    found: dict = {"losses": np.stack(losses), "missing": {}}
    for name, measure in {
        "heads": lambda: _heads(first, second, tokens, prompt, max_tokens),
        "lens": lambda: _lens(first, second, tokens, one, other),
    }.items():
        try:
            found |= measure()
        except ValueError as error:
            found["missing"][name] = str(error)
    return Comparison(tokens=tokens, **found)


def samples(first: Opened, second: Opened, tokens: Alignment, count: int, seed: int) -> tuple[list[Token], list[Token]]:
    """How each model goes on behind the prompt, drawn from its own distribution with the same seed."""
    one, other = (
        list(write(*model, side.ids, max_new_tokens=count, seed=seed)) for model, side in _sides(first, second, tokens)
    )
    return one, other


def head_patterns(
    first: Opened, second: Opened, tokens: Alignment, prompt: str, layer: int, head: int
) -> tuple[np.ndarray, np.ndarray]:
    """One head's attention from unit to unit in both models, (U, U) each."""
    one, other = (
        by_unit(patterns(*model, prompt).pattern(layer, head), side) for model, side in _sides(first, second, tokens)
    )
    return one, other


def guesses(opened: Opened, side: Side, unit: int, row: int | None = None) -> list[tuple[str, float]]:
    """What a model would say next behind a unit: the likeliest tokens with their probabilities.

    Args:
        row: of the lens, the first being the stream before all layers; by default the last, the model itself.
    """
    (model, tokenizer), position = opened, int(side.ends[unit])
    layers = len(structure(model).layers)
    site = "blocks.0.resid_pre" if row == 0 else f"blocks.{(layers if row is None else row) - 1}.resid_post"
    stream = record(model, side.ids, [site], positions=[position])[site][0]
    with torch.no_grad():
        probabilities = Readout(model)(stream)[0].softmax(-1)
    likeliest = probabilities.topk(min(LIKELIEST, len(probabilities)))
    return [(spell(tokenizer, int(i)), float(p)) for p, i in zip(likeliest.values, likeliest.indices, strict=True)]


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence over the last axis, to base 2: 0 for the same distribution, 1 for nothing in common."""
    p, q = (x / x.sum(-1, keepdims=True) for x in (p.astype(np.float64), q.astype(np.float64)))  # as bfloat16 rounds
    middle = (p + q) / 2
    seen = middle > 0
    ratios = [np.divide(x, middle, out=np.ones_like(x), where=seen) for x in (p, q)]
    # x·log x is 0 at 0
    bits = sum(x * np.log2(ratio, out=np.zeros_like(x), where=x > 0) for x, ratio in zip((p, q), ratios, strict=True))
    return np.clip(bits.sum(-1) / 2, 0, 1)


def by_unit(weights: np.ndarray, side: Side) -> np.ndarray:
    """Attention (…, T, T) from the end of each unit to all of each unit, (…, U, U); rows still sum to 1."""
    return side.sums(weights[..., side.ends, : len(side.ids)])


@torch.no_grad()
def unit_losses(model: torch.nn.Module, stream: Tensor, side: Side) -> np.ndarray:
    """Nats of each unit (U,) from the stream behind the last layer (T, C); NaN where the first token is in it."""
    readout, ids = Readout(model), torch.tensor(side.ids)
    losses = [torch.tensor([torch.nan])]
    for block in readout.blocks(len(ids) - 1):
        logits = readout(stream[:-1][block]).cpu()
        losses.append(F.cross_entropy(logits, ids[1:][block], reduction="none"))
    nats = torch.cat(losses).double().numpy()
    if not np.isfinite(nats[1:]).all():
        raise ValueError(DIVERGED)
    return side.sums(nats)


def pair_heads(one: Attention, other: Attention) -> None:
    """Raises ValueError unless both models have as many heads in the same layers."""
    if one.layers != other.layers or one.heads != other.heads:
        sizes = [f"{len(attention.layers)} × {attention.heads}" for attention in (one, other)]
        raise ValueError(
            f"heads cannot be paired: the first model has {sizes[0]} (layers × heads), the second {sizes[1]}"
        )


def _heads(first: Opened, second: Opened, tokens: Alignment, prompt: str, max_tokens: int) -> dict:
    one, other = (patterns(*model, prompt, max_tokens) for model in (first, second))
    pair_heads(one, other)
    values = [  # a layer at a time: memory. The first unit can only look at itself, and says nothing
        divergence(by_unit(mine, tokens.first)[:, 1:], by_unit(theirs, tokens.second)[:, 1:]).mean(-1)
        for mine, theirs in zip(one.weights, other.weights, strict=True)
    ]
    return {"heads": np.stack(values), "layers": one.layers}


@torch.no_grad()
def _lens(first: Opened, second: Opened, tokens: Alignment, one: list[Tensor], other: list[Tensor]) -> dict:
    """KL by row and unit, from the streams of both."""
    if len(one) != len(other):
        raise ValueError(f"layers cannot be paired: the first model has {len(one) - 1}, the second {len(other) - 1}")
    check_vocabulary(first[1], second[1])
    readouts = Readout(first[0]), Readout(second[0])
    shared = min(readout.vocabulary for readout in readouts)  # models round their vocabulary up, each as it likes
    values = torch.zeros(len(one), len(tokens.units), dtype=torch.float64)
    for row, hidden in enumerate(zip(one, other, strict=True)):
        for block in readouts[0].blocks(values.shape[1]):
            p, q = (
                readout(stream[0, block])[:, :shared].log_softmax(-1).cpu()
                for readout, stream in zip(readouts, hidden, strict=True)
            )
            values[row, block] = F.kl_div(q, p, log_target=True, reduction="none").sum(-1).double()
    return {"lens": values.clamp(min=0).numpy(), "rows": row_names(len(one) - 1)}


def check_vocabulary(first, second) -> None:
    """Raises ValueError unless one tokenizer's entries are all the other's too: then the same id is the same token."""
    one, other = (tokenizer.get_vocab().items() for tokenizer in (first, second))
    if not (one <= other or other <= one):
        raise ValueError("what the two models would say next cannot be compared: their vocabularies differ")


def _sides(first: Opened, second: Opened, tokens: Alignment) -> list[tuple[Opened, Side]]:
    return [(first, tokens.first), (second, tokens.second)]


if __name__ == "__main__":
    from interpret.compare_cli import main  # it imports this module

    cli(main)
