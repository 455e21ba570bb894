"""Softmax attention written out, with statistics kept of it: how heads spread, how large scores are, what repeats find.

May import nothing of ours. `measuring` swaps it in for the model's own attention, through the library's registry, for
the forwards inside one block. A model whose attention is no softmax over tokens never calls it: no statistics then.

Shapes: B batch, T queries, S keys, H query heads, G key/value heads, D head dim.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "measured"  # in the library's registry of attention functions
SCORES_AT_ONCE = 2**24  # elements: 64 MB of float32, whatever the context and the number of heads

_record: ContextVar["Spread | Repeats"] = ContextVar("_record")


class Spread:
    """Entropy of every head and the largest score of every layer, on ordinary text.

    The entropy of a query is divided by that of equal weights on all keys it may see, so that 1 is uniform; queries
    with a single key are left out.
    """

    def __init__(self):
        self.entropy: dict[nn.Module, Tensor] = {}  # (H,) sums over queries
        self.queries: dict[nn.Module, Tensor] = {}
        self.largest: dict[nn.Module, Tensor] = {}

    def add(self, module: nn.Module, scores: Tensor, visible: Tensor, weights: Tensor) -> None:
        """Scores q·k/√d and weights (B, H, T, S); visible (B or 1, H or 1, T, S)."""
        keys = visible.sum(-1)  # (B or 1, H or 1, T)
        chosen = keys > 1
        share = torch.special.entr(weights).sum(-1) / keys.clamp_min(2).log()  # (B, H, T)
        _add(self.entropy, module, (share * chosen).sum((0, 2)))
        _add(self.queries, module, chosen.expand_as(share).sum((0, 2)))
        largest = scores.abs().masked_fill(~visible, 0.0).amax()
        self.largest[module] = torch.maximum(largest, self.largest.get(module, largest))

    def results(self, names: dict[nn.Module, str]) -> dict[tuple[str, str], Tensor]:
        """(measure, module's name) -> the entropies of its heads (H,), and the largest score."""
        found = {("attention_entropy", names[m]): total / self.queries[m] for m, total in self.entropy.items()}
        return found | {("max_attention_logit", names[m]): largest for m, largest in self.largest.items()}


class Repeats:
    """What heads do in the second half of [x; x], R random tokens twice (arXiv:2209.11895, arXiv:2404.05971).

    From the query at t: attention to t-R+1, the token behind the same one earlier (induction), to t-1 (previous) and
    to t-R (duplicate); means over t in the second half.
    """

    # which diagonal of the weights, and how many of its first entries belong to queries of the first half
    DIAGONALS = {  # noqa: RUF012
        "induction_score": lambda R: (1 - R, 1),
        "previous_token_score": lambda R: (-1, R - 1),
        "duplicate_token_score": lambda R: (-R, 0),
    }

    def __init__(self):
        self.scores: dict[tuple[str, nn.Module], Tensor] = {}  # (H,) sums over rows of means over queries
        self.rows: dict[nn.Module, int] = {}

    def add(self, module: nn.Module, scores: Tensor, visible: Tensor, weights: Tensor) -> None:
        half = weights.shape[-1] // 2
        for name, place in self.DIAGONALS.items():
            offset, first = place(half)
            entries = weights.diagonal(offset, -2, -1)[..., first:]  # (B, H, R)
            _add(self.scores, (name, module), entries.mean(-1).sum(0))
        self.rows[module] = self.rows.get(module, 0) + len(weights)

    def results(self, names: dict[nn.Module, str]) -> dict[tuple[str, str], Tensor]:
        return {(name, names[m]): total / self.rows[m] for (name, m), total in self.scores.items()}


@contextmanager
def measuring(model: nn.Module, record: Spread | Repeats) -> Iterator[None]:
    """Inside the block the model's softmax attention is written out, and `record` sees the scores and weights."""
    if not getattr(model, "_supports_attention_backend", False):
        yield  # its attention is fixed in its code: there is nothing to swap
        return
    before, token = model.config._attn_implementation, _record.set(record)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _record.reset(token)


def measured_attention(
    module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs
) -> tuple[Tensor, None]:
    """The library's signature: (B, H, T, D) queries, (B, G, S, D) keys and values -> (B, T, H, D)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))  # (B, H, S, D)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    visible = _visible(attention_mask, query, key)
    record, outputs = _record.get(), []
    B, H, T, _ = query.shape
    rows = max(1, SCORES_AT_ONCE // (H * T * key.shape[2]))
    for start in range(0, B, rows):
        part = slice(start, start + rows)
        seen = visible[part] if len(visible) == B else visible
        scores = query[part] @ key[part].mT * scaling  # (b, H, T, S)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        biased = scores
        if attention_mask is not None and attention_mask.is_floating_point():  # with what depends on the distance
            biased = scores + (attention_mask[part] if len(attention_mask) == B else attention_mask)
        weights = biased.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32)
        record.add(module, scores, seen, weights)
        outputs.append((weights.to(value.dtype) @ value[part]).transpose(1, 2))
    return torch.cat(outputs), None


def _visible(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """Which keys a query may see, from the mask itself: causal, windowed or padded, (B or 1, H or 1, T, S)."""
    T, S = query.shape[2], key.shape[2]
    if mask is None:
        return torch.ones(T, S, dtype=torch.bool, device=query.device).tril(S - T)[None, None]
    # a bias such as ALiBi's is far above the lowest number there is, which hides a key
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _add(sums: dict, key, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


# Both registries: an attention function without a mask of its own name is given none, and would look ahead in silence.
AttentionInterface.register(NAME, measured_attention)
AttentionMaskInterface.register(NAME, eager_mask)
