"""What every head of a model attends to in a prompt: the weights themselves, checked, and five numbers a head.

May import `hub` and `data`; of ours here `interpret.prompt`. Works on any causal language model that
`hub.models` opened and gives plain arrays, so that the command and a page can show the same. docs/attention.md has the
formulas.

Shapes: L layers that attend, H query heads, T tokens. A weight is [layer, head, the token that looks, the token
looked at]; layers and heads count from 0, as in the names of the weights.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.console import cli
from interpret.prompt import MAX_TOKENS, read_prompt

TOLERANCE = 1e-5  # float32 rows of MAX_TOKENS sum to 1 within 2e-6; narrower types get their own epsilon
# what is told of a head: its name, what that means, and the unit
STATISTICS = {
    "distance": ("mean distance looked back", "tokens"),
    "entropy": ("entropy", "nats"),
    "relative_entropy": ("entropy of the most it could be", "%"),
    "first": ("attention on the first token", "%"),
    "previous": ("attention on the previous token", "%"),
    "itself": ("attention on the token itself", "%"),
}


@dataclass(frozen=True)
class Attention:
    """One prompt's attention in one model."""

    tokens: list[str]  # each token's own spelling
    ids: list[int]
    layers: list[int]  # the number of each recorded layer in the model: a hybrid model has others between them
    windows: list[int | None]  # how many tokens a query of that layer may see, itself included; None: all
    weights: np.ndarray  # (L, H, T, T) float32
    note: str  # what was cut off the prompt, as a sentence; "" for nothing

    @property
    def heads(self) -> int:
        return self.weights.shape[1]

    def pattern(self, layer: int, head: int) -> np.ndarray:
        """One head's weights (T, T). Raises ValueError where there is no such layer or head."""
        if layer not in self.layers:
            raise ValueError(f"layer {layer} has no attention to show; layers that have it: {_span(self.layers)}")
        if not 0 <= head < self.heads:
            raise ValueError(f"there is no head {head}; this model's heads: {_span(list(range(self.heads)))}")
        return self.weights[self.layers.index(layer), head]


def patterns(model, tokenizer, prompt: str, max_tokens: int = MAX_TOKENS) -> Attention:
    """The attention of every head on `prompt`, behind the token that begins every text where there is one.

    One forward pass with eager attention, which alone computes the weights; the model is left as it was. Raises
    ValueError for a prompt of fewer than two tokens, and for a model whose attention is no softmax over tokens.
    """
    if getattr(model.config, "attention", "softmax") == "linear":
        raise ValueError(
            "this model's attention is linear: it reads a running sum of all earlier tokens, and has no weight for "
            "each of them to show"
        )
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    recorded = _record(model, read.ids)
    if not recorded:
        raise ValueError(
            f"this model ({model.config.model_type}) gives no attention weights: a state-space or recurrent model has "
            "none; choose one with softmax attention"
        )
    for layer, weights in recorded.items():
        check(layer, weights)
    return Attention(
        tokens=read.tokens,
        ids=read.ids,
        layers=list(recorded),
        windows=[window(model.config, layer) for layer in recorded],
        weights=np.stack([weights.float().cpu().numpy() for weights in recorded.values()]),
        note=read.note,
    )


def check(layer: int, weights: Tensor) -> None:
    """Raises ValueError, with the numbers, unless every row (H, T, T) sums to 1 and nothing looks ahead."""
    tolerance = max(TOLERANCE, torch.finfo(weights.dtype).eps)
    off = (weights.double().sum(-1) - 1).abs()  # (H, T)
    ahead = weights.triu(1).abs().amax((1, 2))  # (H,) exactly zero: a masked score is the lowest number there is
    head, row = divmod(int(off.argmax()), off.shape[1])
    if not float(off.max()) <= tolerance:  # said so that NaN fails
        total = float(weights[head, row].double().sum())
        raise ValueError(
            f"layer {layer}, head {head}: the weights of token {row} sum to {total:.6f}, not to 1 ± {tolerance:.0e}: "
            "its weights are damaged, or its attention is no plain softmax over tokens"
        )
    if not float(ahead.max()) == 0:
        raise ValueError(
            f"layer {layer}, head {int(ahead.argmax())}: a token gives weight {float(ahead.max()):.6f} to a later one: "
            "this model's attention is not causal"
        )


def statistics(weights: np.ndarray, windows: list[int | None]) -> dict[str, np.ndarray]:
    """The numbers of STATISTICS, each (L, H): means over all tokens but the first, which can only look at itself.

    Distance and entropy as in arXiv:1906.04284. The relative entropy divides each token's by the logarithm of how many
    tokens it may see. Shares are fractions of 1.
    """
    if weights.shape[-1] < 2:
        raise ValueError("the first token can only look at itself: statistics need at least two")
    layers = [_of_layer(*layer) for layer in zip(weights, windows, strict=True)]  # one at a time: memory
    return {name: np.stack([layer[name] for layer in layers]) for name in STATISTICS}


def _of_layer(weights: np.ndarray, window: int | None) -> dict[str, np.ndarray]:
    """The statistics of one layer's weights (H, T, T), each (H,)."""
    T = weights.shape[-1]
    looking = np.arange(1, T)
    rows = weights[:, 1:].astype(np.float64)  # (H, T-1, T)
    back = looking[:, None] - np.arange(T)  # (T-1, T) tokens back; below 0 the weight is 0
    # x·ln x is 0 at 0, where a weight can be
    entropy = -(rows * np.log(rows, out=np.zeros_like(rows), where=rows > 0)).sum(-1)  # (H, T-1)
    visible = np.minimum(looking + 1, window or T)  # (T-1,)
    most = np.log(np.maximum(visible, 2))  # a window of one token leaves no choice: 0 of any logarithm
    return {
        "distance": (rows * back).sum(-1).mean(-1),
        "entropy": entropy.mean(-1),
        "relative_entropy": (entropy / most).mean(-1),
        "first": rows[..., 0].mean(-1),
        "previous": rows[:, looking - 1, looking - 1].mean(-1),
        "itself": rows[:, looking - 1, looking].mean(-1),
    }


def pool(weights: np.ndarray, side: int) -> np.ndarray:
    """Means over squares of weights (L, H, T, T), so that at most `side` of them are left along an axis."""
    T = weights.shape[-1]
    starts = np.arange(0, T, -(-T // side))
    counts = np.diff([*starts, T])  # the last square may be smaller
    sums = np.add.reduceat(np.add.reduceat(weights, starts, axis=2), starts, axis=3)
    return sums / np.outer(counts, counts)


@torch.inference_mode()
def _record(model, ids: list[int]) -> dict[int, Tensor]:
    """The weights (H, T, T) of each layer that has some, by the layer's number in the model.

    The library lists the weights without saying of which layer they are, and a hybrid model's attention is in a few
    layers only. The number is in the name of the module that returned the very tensor: `model.layers.3.self_attn`.
    """
    origin: dict[int, tuple[str, Tensor]] = {}  # the tensor too: only while it is alive is its identity its own

    def note(name: str):
        def hook(_module, _inputs, outputs) -> None:
            for output in outputs if isinstance(outputs, tuple) else ():
                if isinstance(output, Tensor) and output.ndim == 4:  # the first to return it is the innermost
                    origin.setdefault(id(output), (name, output))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with eager(model):
            outputs = model(input_ids=torch.tensor([ids], device=model.device), output_attentions=True, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    square = (len(ids), len(ids))
    return {
        int(re.search(r"\.(\d+)\.", origin[id(weights)][0])[1]): weights[0]
        for weights in getattr(outputs, "attentions", None) or ()
        if id(weights) in origin and weights.shape[2:] == square
    }


@contextmanager
def eager(model) -> Iterator[None]:
    """Inside, attention is computed as it is defined, its weights returned; outside, the way it was before."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)


def window(config, layer: int) -> int | None:
    """How many tokens a query of that layer may see, itself included, by the library's names for it."""
    kinds = getattr(config, "layer_types", None)
    everywhere = kinds is None  # a model without kinds of layers has its window in all of them
    return getattr(config, "sliding_window", None) if everywhere or kinds[layer] == "sliding_attention" else None


def _span(numbers: list[int]) -> str:
    """Numbers in order as a person says them: `0 to 11`, or each of them where some are left out."""
    whole = len(numbers) > 1 and len(numbers) == numbers[-1] - numbers[0] + 1
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))


if __name__ == "__main__":
    from interpret.attention_cli import main  # it imports this module

    cli(main)
