"""The rows that examples make: what is cut or dropped, how many share a row, how much of a batch is padding.

Uses numpy; of ours here `finetune.{cutting,packing}`. A pure function of the examples' tokens and the recipe, so that
a look at some of them tells what training will meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.cutting import Cutter, Pair
from finetune.packing import pack
from finetune.recipe import FinetuneRecipe


@dataclass(frozen=True)
class Rows:
    """What becomes of the examples that were looked at."""

    examples: int
    """Of them, those that are trained on."""
    cut: int
    dropped: int
    refused: int
    """Too long, where that is a mistake."""
    lengths: np.ndarray
    """(R,) tokens of each row."""
    scored: int
    """Tokens of all rows that are learnt."""
    padding: float
    """Share of what is computed that is padding."""
    packing_saves: float
    """Share of what is computed without packing that packing does away with."""

    @property
    def per_example(self) -> float:
        return len(self.lengths) / self.examples

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def rows_of(pairs: Sequence[Pair], recipe: FinetuneRecipe) -> Rows:
    """The rows of the recipe's batches. Raises ValueError where no example is left.

    Args:
        pairs: (ids, scored) of each example, whole.
    """
    data, train = recipe.data, recipe.train
    refused = sum(len(ids) > train.context for ids, _ in pairs) if data.too_long == "refuse" else 0
    cutter = Cutter(train.context, "cut" if data.too_long == "refuse" else data.too_long)
    kept = [pair for one in pairs if (pair := cutter({}, one)) is not None]
    if not kept:
        raise ValueError(
            f"every example of {data.source} that was looked at is longer than the context of {train.context:,} "
            "tokens: raise --train.context"
        )
    alone = np.array([len(ids) for ids, _ in kept])
    packed = np.array([alone[numbers].sum() for numbers in pack(alone, train.context)])
    lengths = packed if data.packing else alone
    computed = {len(rows): computed_tokens(rows, train.batch_size, train.seed) for rows in (alone, packed)}
    return Rows(
        examples=len(kept),
        cut=0 if data.too_long == "refuse" else cutter.cut,
        dropped=0 if data.too_long == "refuse" else cutter.dropped,
        refused=refused,
        lengths=lengths,
        scored=sum(int(scored.sum()) for _, scored in kept),
        padding=1 - lengths.sum() / computed[len(lengths)],
        packing_saves=max(0.0, 1 - computed[len(packed)] / computed[len(alone)]),
    )


def computed_tokens(rows: np.ndarray, batch_size: int, seed: int) -> float:
    """Tokens that go through the model in an epoch: every row of a batch is as wide as the longest of it.

    Args:
        rows: (R,) tokens of each.
        seed: of an order such as an epoch has.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    batches = np.resize(shuffled, (-(-len(rows) // batch_size), batch_size))  # the last one is filled from the next
    return float(batches.max(axis=1).mean() * len(rows))
