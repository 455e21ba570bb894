"""What becomes of examples that are longer than the context.

Uses numpy; of ours here `finetune.formats`.
"""

import numpy as np

from finetune.formats import where

Pair = tuple[np.ndarray, np.ndarray]  # ids (T,) int32 and scored (T,) bool of one example


class Cutter:
    """What becomes of examples of more than `context` tokens, counted."""

    def __init__(self, context: int, too_long: str):
        self.context, self.too_long = context, too_long
        self.cut = self.dropped = self.seen = 0
        self.refused: list[tuple[int, str]] = []  # tokens and place of each

    def __call__(self, example: dict, pair: Pair) -> Pair | None:
        """The example as it is trained on; None: not at all."""
        ids, scored = pair
        self.seen += 1
        if len(ids) <= self.context:
            return pair
        if self.too_long == "refuse":
            self.refused.append((len(ids), where(example)))
            return None
        if self.too_long == "drop" or not scored[: self.context].any():  # nothing of the answer is left to learn
            self.dropped += 1
            return None
        self.cut += 1
        return ids[: self.context], scored[: self.context]

    def check(self) -> None:
        """Raises ValueError where examples were refused: the first of them, how many there are, and the longest."""
        if not self.refused:
            return
        tokens, place = self.refused[0]
        others = f" ({len(self.refused):,} of {self.seen:,} have, the longest {max(self.refused)[0]:,})"
        raise ValueError(
            f"{place}: the example has {tokens:,} tokens, more than the context of {self.context:,}"
            f"{others if len(self.refused) > 1 else ''}: raise --train.context, or let long examples be shortened or "
            "left out with --data.too_long cut or drop"
        )
