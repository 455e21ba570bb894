"""The global batch of any step of a fine-tuning: rows of examples, padded, with the answers as labels.

May import `finetune.encoding`. A pure function of (seed, data_step), as `data.tokens.Batches`: nothing to checkpoint,
and any number of processes or micro-batches takes slices of the same rows.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from finetune.encoding import Encoded

IGNORED = -100  # the library's label for a token that is not scored
FILL = {"input_ids": 0, "labels": IGNORED, "position_ids": 0}  # beyond a row's end


@dataclass(frozen=True)
class ExampleBatches:
    """Each example once an epoch, in an order of the epoch's own.

    Padding stands to the right of everything that is scored, where a causal model cannot see it: no mask is needed.

    Args:
        encoded: a split's examples.
        bins: numbers of the examples that share a row, of each row; None: every row is one example.
    """

    encoded: Encoded
    batch_size: int
    seed: int
    bins: list[np.ndarray] | None = None
    _epochs: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def rows_per_epoch(self) -> int:
        return len(self.encoded) if self.bins is None else len(self.bins)

    @property
    def steps_per_epoch(self) -> float:
        return self.rows_per_epoch / self.batch_size

    @cached_property
    def tokens_per_step(self) -> int:
        """Tokens of the examples in a mean step, padding left out."""
        return round(len(self.encoded.ids) / self.rows_per_epoch * self.batch_size)

    def batch(self, data_step: int) -> dict[str, np.ndarray]:
        """`input_ids` and `labels`, (B, T) int64; with packing `position_ids`, which begin again with each example.

        T is that of the longest row. The label of a token is the one after it, -100 where that is not to be learnt.
        """
        places = data_step * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(places, self.rows_per_epoch)
        rows = [self._row(self._order(int(epoch))[place]) for epoch, place in zip(epochs, places, strict=True)]
        return padded(rows)

    def _row(self, number: int) -> dict[str, np.ndarray]:
        if self.bins is None:
            return example_rows(*self.encoded.example(number))
        parts = [example_rows(*self.encoded.example(i)) for i in self.bins[number]]
        row = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return row | {"position_ids": np.concatenate([np.arange(len(part["labels"])) for part in parts])}

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            # counter-based, so that any epoch is reached without the ones before it
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            while len(self._epochs) > 1:  # a batch touches two epochs at most, but where it is larger than one
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = random.permutation(self.rows_per_epoch)
        return self._epochs[epoch]


def example_rows(ids: np.ndarray, scored: np.ndarray) -> dict[str, np.ndarray]:
    """One example's tokens but the last, and what each is to be followed by."""
    ids = np.asarray(ids, dtype=np.int64)
    return {"input_ids": ids[:-1], "labels": np.where(np.asarray(scored)[1:], ids[1:], IGNORED)}


def padded(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of many lengths as (B, T), T being the longest's."""
    longest = max(len(row["labels"]) for row in rows)

    def stack(name: str) -> np.ndarray:
        return np.stack([np.pad(row[name], (0, longest - len(row[name])), constant_values=FILL[name]) for row in rows])

    return {name: stack(name) for name in rows[0]}
