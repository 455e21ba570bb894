"""Generation one token at a time, without the library's bookkeeping: what streaming and sampling use.

The model's own layers run on a cache that is allocated once. Nothing here knows a kind of attention or position: the
layers do. Imports torch and the library's cache.

Shapes: B batch, T time, L the whole length, G key/value heads, D head dim, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache


@dataclass
class Step:
    """One generated token for each row."""

    token_ids: Tensor  # (B,)
    logits: Tensor  # (B, V) as the model gave them, before temperature and filters


class FixedCache:
    """Keys and values of every layer, in place: nothing grows, nothing is copied."""

    def __init__(self, prompt: Cache, seen: int, length: int, window: int | None):
        self.seen = seen
        self.window = window or length
        self.layers = [(self._extend(layer.keys, length), self._extend(layer.values, length)) for layer in prompt.layers]

    def _extend(self, x: Tensor, length: int) -> Tensor:
        """The prompt's part (B, G, T, D) in a tensor with room for `length`; behind a window, its last tokens only."""
        buffer = x.new_zeros(*x.shape[:2], length, x.shape[-1])
        buffer[:, :, self.seen - x.shape[2] : self.seen] = x
        return buffer

    def update(self, k: Tensor, v: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        keys, values = self.layers[layer_idx]
        keys[:, :, self.seen : self.seen + 1] = k
        values[:, :, self.seen : self.seen + 1] = v
        first, end = self.first(), self.seen + 1
        return keys[:, :, first:end], values[:, :, first:end]

    def first(self) -> int:
        return max(0, self.seen + 1 - self.window)

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        first = self.first()
        return self.seen + query_length - first, first
