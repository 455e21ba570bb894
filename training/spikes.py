"""Loss spikes: steps whose loss is far above those before, by a measure that a spike itself does not move.

May import nothing of ours.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

WINDOW = 50  # steps a loss is compared with; fewer are no measure of what is usual
DEVIATIONS = 6  # median absolute deviations; of normal noise one step in forty thousand is so far above
SMALLEST_DEVIATION = 0.005  # nats: a flat curve's own deviation is next to nothing, and anything would be a spike


@dataclass(frozen=True)
class Spike:
    """A step's loss and the limit that it is above; a loss that is no number is one too, whatever came before."""

    step: int
    loss: float
    limit: float | None

    def __str__(self) -> str:
        usual = "" if self.limit is None else f", where up to {self.limit:.4f} is usual"
        return f"step {self.step}: the loss spikes to {self.loss:.4f}{usual}"


class Spikes:
    """Judges each step's loss by the last fifty, itself not among them.

    Args:
        losses: of the steps before, where a run goes on.
    """

    def __init__(self, losses: Iterable[float] = ()):
        self.recent = deque(losses, maxlen=WINDOW)

    @property
    def limit(self) -> float | None:
        """median + 6·MAD of the last fifty losses; None while there are fewer."""
        if len(self.recent) < WINDOW:
            return None
        median = statistics.median(self.recent)
        deviation = statistics.median(abs(loss - median) for loss in self.recent)
        return median + DEVIATIONS * max(deviation, SMALLEST_DEVIATION)

    def judge(self, step: int, loss: float) -> Spike | None:
        """The spike that this loss is, if it is one. To be called once a step, in order."""
        limit = self.limit
        if not math.isfinite(loss):
            return Spike(step, loss, limit)  # and it is no measure for those that come
        self.recent.append(loss)
        return Spike(step, loss, limit) if limit is not None and loss > limit else None
