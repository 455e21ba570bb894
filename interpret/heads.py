"""What each head does, by scores: does it look at the previous token, at the first, at repetitions, behind them?

Of ours here `interpret.record` and `structure`. Measured on random tokens that are repeated once, [x; x]: nothing in
them can be guessed but by looking back, so that a head's habits show (arXiv:2209.11895).

Shapes: B rows, R random tokens (T = 2R, and one more that begins every text), L layers that attend, H heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.record import check_length, record
from interpret.structure import structure

LENGTH, ROWS = 48, 8  # tokens in x, and how many such rows: the standard error of a score is then below 0.01
KINDS = {  # score: what a head with much of it is called, and what it looks at
    "previous": ("previous token", "the token before"),
    "induction": ("induction", "the token behind this one's earlier occurrence"),
    "duplicate": ("duplicate token", "this token's earlier occurrence"),
    "first": ("first token", "the first token of all"),
}
SURE = 0.3  # mean attention from which on a head is called by what it does


@dataclass(frozen=True)
class HeadScores:
    """Mean attention over the second half's queries, (L, H) each by the names of KINDS; the loss of both halves.

    `in_context` is the loss on tokens that cannot be foreseen (the first half, and where the second begins) minus that
    on those that can, in nats per token: what copying gains.
    """

    layers: list[int]
    scores: dict[str, np.ndarray]
    loss_first: float
    loss_second: float

    @property
    def in_context(self) -> float:
        return self.loss_first - self.loss_second

    def called(self, layer: int, head: int) -> str:
        """What the head is called by its largest score, "" where none is large."""
        row = self.layers.index(layer)
        name = max(KINDS, key=lambda kind: self.scores[kind][row, head])
        return KINDS[name][0] if self.scores[name][row, head] >= SURE else ""


def head_scores(
    model: nn.Module, bos: int | None = None, length: int = LENGTH, rows: int = ROWS, seed: int = 0, edits=None
) -> HeadScores:
    """Score every head of a causal language model on repeated random tokens.

    Args:
        bos: the token that begins every text, put in front; left out where None.
        length: R, tokens in one half; shortened to what the model has positions for.
        edits: parts removed or replaced meanwhile, as `interpret.record` takes them.

    Raises ValueError where no layer has softmax attention.
    """
    ids = repeated(model, bos, length, rows, seed)
    layers = range(len(structure(model).layers))
    found = record(model, ids, ["pattern", "logits"], layers, edits=edits)
    losses = F.cross_entropy(found["logits"][:, :-1].float().mT, ids[:, 1:], reduction="none")  # (B, T-1)
    half = (ids.shape[1] - (bos is not None)) // 2
    second = losses[:, -half + 1 :]  # the repetition's first token cannot be foreseen
    patterns = [found[f"blocks.{layer}.pattern"] for layer in layers]
    scored = [scores_of(pattern, half) for pattern in patterns]
    return HeadScores(
        layers=list(layers),
        scores={kind: np.stack([one[kind] for one in scored]) for kind in KINDS},
        loss_first=float(losses[:, : -half + 1][:, -half:].mean()),
        loss_second=float(second.mean()),
    )


def repeated(model: nn.Module, bos: int | None, length: int, rows: int, seed: int) -> Tensor:
    """[bos; x; x] (B, T): x is drawn evenly from the vocabulary, special tokens at its start left out."""
    vocabulary = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(seed)
    while True:
        try:
            check_length(model, 2 * length + (bos is not None))
            break
        except ValueError:
            if length < 4:
                raise
            length //= 2
    low = min(8, vocabulary // 2)  # tokenizers keep their reserved entries first
    x = torch.randint(low, vocabulary, (rows, length), generator=generator)
    front = [torch.full((rows, 1), bos)] if bos is not None else []
    return torch.cat([*front, x, x], dim=1)


def scores_of(pattern: Tensor, half: int) -> dict[str, np.ndarray]:
    """Each score (H,) of one layer's weights (B, H, T, T), over the queries of the last `half` tokens."""
    T = pattern.shape[-1]
    queries = torch.arange(T - half, T)
    keys = {
        "previous": queries - 1,
        "induction": queries - half + 1,
        "duplicate": queries - half,
        "first": torch.zeros_like(queries),
    }
    return {kind: pattern[:, :, queries, there].double().mean((0, 2)).numpy() for kind, there in keys.items()}
