"""What a fine-tuning's loss curve says: healthy, over-fitted, too high a rate or too low a one, by a rule.

May import `hub`. The rule reads one run's own curves and nothing else, so that it judges any fine-tuning; each verdict
has the numbers that led to it. Losses are nats per scored token. docs/experiments/finetune-loss-curve/ has the four.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hub.metrics import read_metrics
from hub.runs import Run

HEALTHY, OVER_FITTED, TOO_HIGH, TOO_LOW = "healthy", "over-fitted", "rate too high", "rate too low"
NAMES = (HEALTHY, OVER_FITTED, TOO_HIGH, TOO_LOW)
LEAST = 6  # steps; less is no curve
WINDOWS = 6  # a training loss is compared in averages over so many parts: batches differ by a tenth easily
LOOKS = 3  # evaluations that make a curve by themselves; they are of the same examples each time
# The thresholds lie between what the four settings of the experiment measured, and well outside of their scatter.
RISE = 0.10  # of its lowest: a loss on training examples that rose by more does not settle
ABOVE = 0.50  # of its start: a training loss that ends so far above it was driven away; one batch is not so odd
TURNED = 0.03  # of its lowest: a validation loss that ends so far above it has turned
HARDLY, NEAR = 0.05, 0.30  # of the first: a loss that fell by less hardly moved; unless it had fallen before that


@dataclass(frozen=True)
class Curve:
    """One run's losses. `train` has one for each of `steps` (N,); `validation` and `scored_train`, the loss on the same
    training examples each time, have one for each of `evaluated` (E,)."""

    steps: np.ndarray
    train: np.ndarray
    evaluated: np.ndarray
    validation: np.ndarray
    scored_train: np.ndarray

    @classmethod
    def of(cls, columns: Mapping[str, list]) -> "Curve":
        """From columns as `hub.metrics.read_metrics` gives them."""
        steps = np.array(columns["step"], dtype=int)
        train, validation, scored = (
            _numbers(columns.get(name), len(steps)) for name in ("train_loss", "val_loss", "eval_train_loss")
        )
        trained = np.array([one is not None for one in columns.get("train_loss") or [None] * len(steps)], dtype=bool)
        judged = np.isfinite(validation)
        return cls(steps[trained], train[trained], steps[judged], validation[judged], scored[judged])

    def as_json(self) -> dict[str, list]:
        """For a results file, as strict JSON: what is no number is null."""
        columns = {"step": self.steps, "train_loss": self.train}
        evaluated = {"step": self.evaluated, "val_loss": self.validation, "eval_train_loss": self.scored_train}
        return {
            "training": {name: _plain(values) for name, values in columns.items()},
            "evaluation": {name: _plain(values) for name, values in evaluated.items()},
        }

    @property
    def start(self) -> float:
        """The loss of the first batch, which no update came before: up to that batch's oddness it is the base's."""
        return float(self.train[0])

    @property
    def end(self) -> float:
        """The training loss at the end, averaged over the last part."""
        return float(self.train[-max(len(self.train) // WINDOWS, 1) :].mean())

    @property
    def course(self) -> tuple[np.ndarray, np.ndarray]:
        """(steps, losses on training examples): of the evaluations where there are some, else averages over parts."""
        if len(self.evaluated) >= LOOKS:
            return self.evaluated, self.scored_train
        parts = [part for part in np.array_split(np.arange(len(self.train)), WINDOWS) if len(part)]
        return np.array([self.steps[part[-1]] for part in parts]), np.array([self.train[part].mean() for part in parts])


class Verdict(NamedTuple):
    """What a curve is called, and why in one sentence with its numbers."""

    name: str
    reason: str


def curve_of(run: Run) -> Curve:
    """The curve that a run has written so far."""
    return Curve.of(read_metrics(run.path))


def verdict(curve: Curve) -> Verdict:
    """The name of a curve. Raises ValueError for one that is too short to be called anything.

    In this order: a loss that diverges or does not settle says nothing about over-fitting any more, and one that
    over-fits has certainly moved.
    """
    if len(curve.steps) < LEAST and np.isfinite(curve.train).all():
        raise ValueError(f"a curve of {len(curve.steps)} steps cannot be judged: {LEAST} steps at least")
    for rule in (_diverges, _over_fits, _hardly_moves):
        if found := rule(curve):
            return found
    fall = curve.start - curve.end
    said = f"the training loss fell by {fall:.3f} from {curve.start:.3f} ({fall / curve.start:.0%})"
    if len(curve.validation):
        low, end = curve.validation.min(), curve.validation[-1]
        said += f", and the validation loss ends at {end:.3f}, its lowest being {low:.3f}"
    return Verdict(HEALTHY, said)


def _diverges(curve: Curve) -> Verdict | None:
    bad = ~np.isfinite(curve.train)
    if bad.any():
        return Verdict(TOO_HIGH, f"the training loss is not a number at step {curve.steps[bad.argmax()]:,}")
    if curve.end > (1 + ABOVE) * curve.start:
        return Verdict(
            TOO_HIGH, f"the training loss ends at {curve.end:.3f}, above the {curve.start:.3f} it began with"
        )
    steps, losses = curve.course
    lowest = np.minimum.accumulate(losses)
    worst = int((losses / lowest).argmax())
    if losses[worst] <= (1 + RISE) * lowest[worst]:
        return None
    return Verdict(
        TOO_HIGH,
        f"the loss on training examples does not settle: it rose from {lowest[worst]:.3f} to {losses[worst]:.3f} at "
        f"step {steps[worst]:,}",
    )


def _over_fits(curve: Curve) -> Verdict | None:
    if len(curve.validation) < 2:
        return None
    best = int(curve.validation.argmin())
    low, end = curve.validation[best], curve.validation[-1]
    before, after = curve.scored_train[best], curve.scored_train[-1]
    if end <= (1 + TURNED) * low or not after < before:
        return None
    return Verdict(
        OVER_FITTED,
        f"the validation loss rose from {low:.3f} at step {curve.evaluated[best]:,} to {end:.3f} at the end, while the "
        f"loss on training examples went on falling, from {before:.3f} to {after:.3f}",
    )


def _hardly_moves(curve: Curve) -> Verdict | None:
    (first, *_), losses = curve.course
    fall = (losses[0] - losses[-1]) / losses[0]
    if fall >= HARDLY or curve.start > (1 + NEAR) * losses[0]:
        return None
    return Verdict(
        TOO_LOW,
        f"the loss on training examples hardly moved: {losses[0]:.3f} at step {first:,}, {losses[-1]:.3f} at the end "
        f"({fall:.1%} less), after {curve.start:.3f} in the first step",
    )


def _numbers(values: list | None, length: int) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values or [None] * length], dtype=float)


def _plain(values: np.ndarray) -> list:
    if values.dtype.kind == "i":
        return values.tolist()
    return [round(one, 6) if math.isfinite(one) else None for one in values.tolist()]
