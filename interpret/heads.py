"""What each head does, by scores: does it look at the previous token, at the first, at repetitions, behind them?

Of ours here `interpret.record` and `structure`. Measured on random tokens that are repeated once, [x; x]: nothing in
them can be guessed but by looking back, so that a head's habits show (arXiv:2209.11895).

Shapes: B rows, R random tokens (T = 2R, and one more that begins every text), L layers that attend, H heads.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.record import record
from interpret.structure import structure, text_config

RESERVED = 8  # tokenizers keep their reserved entries first
LENGTH, ROWS = 48, 8  # tokens in x, and how many such rows: the standard error of a score is then below 0.01
KINDS = {  # score: what a head with much of it is called, and what it looks at
    "previous": ("previous token", "the token before"),
    "induction": ("induction", "the token behind this one's earlier occurrence"),
    "duplicate": ("duplicate token", "this token's earlier occurrence"),
    "first": ("first token", "the first token of all"),
}
FEWEST = 8  # different tokens to draw from, and tokens in x where there are fewer
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

    def names(self) -> list[tuple[str, str, float]]:
        """(head such as L1H0, what it is called, that score) of all that have a name, the surest first."""
        found = []
        for row, layer in enumerate(self.layers):
            for head in range(self.scores["induction"].shape[1]):
                if name := self.called(layer, head):
                    found.append((f"L{layer}H{head}", name, max(float(s[row, head]) for s in self.scores.values())))
        return sorted(found, key=lambda one: -one[2])

    def called(self, layer: int, head: int) -> str:
        """What the head is called by its largest score, "" where none is large."""
        row = self.layers.index(layer)
        name = max(KINDS, key=lambda kind: self.scores[kind][row, head])
        return KINDS[name][0] if self.scores[name][row, head] >= SURE else ""


def head_scores(
    model: nn.Module,
    bos: int | None = None,
    length: int = LENGTH,
    rows: int = ROWS,
    seed: int = 0,
    among: Sequence[int] | None = None,
    edits=None,
    layers: Collection[int] | None = None,
) -> HeadScores:
    """Score every head of a causal language model on repeated random tokens.

    Args:
        bos: the token that begins every text, put in front; left out where None.
        length: R, tokens in one half; shortened to what the model has positions for, and to the tokens there are.
        among: the tokens to draw from, such as those of the text a small model was trained on; by default all but the
            first few, which tokenizers reserve.
        edits: parts removed or replaced meanwhile, as `interpret.record` takes them.
        layers: those whose heads are scored; all by default.

    Raises ValueError where one of them has no softmax attention.
    """
    ids = repeated(model, bos, length, rows, seed, among)
    layers = range(len(structure(model).layers)) if layers is None else layers
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


def looks_like(
    model: nn.Module, tokenizer, ids: Sequence[int], layers: Collection[int] | None = None, **how
) -> HeadScores:
    """Score heads on tokens drawn among those of a text, `ids`, where it has enough of them.

    A small model knows the tokens of its corpus alone, and what it does with others says nothing. `how` is passed on.
    """
    among = sorted(set(ids) - set(tokenizer.all_special_ids))
    among = among if len(among) >= FEWEST else None
    return head_scores(model, tokenizer.bos_token_id, among=among, layers=layers, **how)


def repeated(
    model: nn.Module, bos: int | None, length: int, rows: int, seed: int, among: Sequence[int] | None = None
) -> Tensor:
    """[bos; x; x] (B, T). The tokens of an x differ where there are enough, so that none stood earlier by chance."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    pool = torch.tensor(sorted(set(range(min(RESERVED, vocabulary // 2), vocabulary) if among is None else among)))
    if len(pool) < 2:
        raise ValueError("random tokens are drawn from two or more different ones")
    room = getattr(text_config(model), "max_position_embeddings", None)  # some could go on, but were never trained to
    length = min(length, max(len(pool), FEWEST), *([] if room is None else [(room - (bos is not None)) // 2]))
    if length < 2:
        raise ValueError(f"the model's {room} positions are too few for tokens that are repeated")
    generator = torch.Generator().manual_seed(seed)
    differ = length <= len(pool)
    draw = [
        torch.randperm(len(pool), generator=generator)[:length]
        if differ
        else torch.randint(len(pool), (length,), generator=generator)
        for _ in range(rows)
    ]
    x = pool[torch.stack(draw)]
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
