"""What a run measures of its model every `diagnose_every` steps, under the names of `hub.measures`.

May import `hub` and `data`. A look costs a copy of the weights, a forward pass over a fixed probe batch and, where the
batch is not split anyway, a split backward pass. None of it moves a bit of the training: hooks, gradients, modes and
random numbers are left as they were, and what is compiled is never called.
"""

import dataclasses
import math
import statistics

import numpy as np
import torch
from torch import Tensor

from training.noise_scale import NoiseScale, split_batch
from training.probe import PROBE_TOKENS, Probe, evaluating
from training.sharding import is_sharded
from training.step_measures import StepMeasures

PIECES = 4  # of half a batch, for the noise scale where nothing splits it
TOKENS_AT_ONCE = 1024  # of the probe batch, at least: many small forward passes would take long
DIGITS = 6  # significant ones that are kept of a measure; float32 has seven


def mean(values: list) -> float:
    return statistics.mean(_flat(values))


def largest(values: list) -> float:
    return max(_flat(values))


def last(values: list) -> float:
    return values[-1]


# The run's own figure from those of its layers, heads or matrices.
FIGURES = {
    "update_ratio": statistics.median,
    "update_ratio_sgd": statistics.median,
    "grad_variance": mean,
    "weight_rms": statistics.median,
    "dead_perc": mean,
    "inactive_frac": mean,
    "residual_rms": last,
    "attention_entropy": mean,
    "max_attention_logit": largest,
    "induction_score": largest,
    "previous_token_score": largest,
    "duplicate_token_score": largest,
}


class Diagnostics:
    """Looks at one run's model; the probe batch is fixed, so that its points make a curve.

    Args:
        job: the loop's; its model as it is, neither compiled nor wrapped.
        noise: smoothed so far; None where each step's micro-batches tell the noise scale already.
    """

    def __init__(self, job, optimizer, noise: NoiseScale | None):
        self.job, self.optimizer, self.noise = job, optimizer, noise
        rows = job.recipe.batch_size // (job.recipe.accumulate * job.accelerator.num_processes)
        rows = max(rows, TOKENS_AT_ONCE // job.recipe.context)
        count = -(-PROBE_TOKENS // job.recipe.context)
        ids = dataclasses.replace(job.batches, batch_size=count).batch(0)["input_ids"]
        self.probe = Probe(job.model, torch.from_numpy(ids).to(job.accelerator.device), rows)

    def before_step(self) -> StepMeasures:
        return StepMeasures(self.job.model, self.optimizer)

    def after_step(self, measures: StepMeasures, batch: dict[str, np.ndarray], loss_of) -> dict:
        """Everything that is measured at this cadence: figures, and `NAME/PART` of layers and matrices.

        Args:
            batch: the rows of the step to come, which the weights have not seen, for the noise scale.
            loss_of: the loop's, to be given the model, a batch, the count of its labels and the label smoothing.
        """
        found = measures.results() | self.probe.measure()
        pieces = self.pieces(batch) if self.noise is not None else []
        if pieces:
            found["noise_pieces", ""] = self.split(pieces, loss_of)
        values = fetch(found)
        if pieces and ("noise_pieces", "") in values:
            small, big = values.pop(("noise_pieces", ""))
            tokens = pieces[0]["labels"].numel()
            self.noise.add(small, big, tokens, tokens * len(pieces))
            if self.noise.tokens is not None:
                values["noise_scale", ""] = float(f"{self.noise.tokens:.{DIGITS}g}")
        return figures(values)

    def pieces(self, batch: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
        """Equal pieces of the batch's first half; none where that cannot be measured.

        Where not every token is scored their gradients are means of different numbers, which tell no noise.
        """
        labels = batch["labels"]
        rows = -(-len(labels) // 2) if len(labels) > 2 else len(labels)
        count = min(PIECES, rows)
        if count < 2 or (labels < 0).any() or is_sharded(self.job.model):
            return []
        kept, device = rows // count * count, self.job.accelerator.device
        parts = {name: np.split(values[:kept], count) for name, values in batch.items()}
        return [
            {name: torch.from_numpy(np.ascontiguousarray(part[i])).to(device) for name, part in parts.items()}
            for i in range(count)
        ]

    def split(self, pieces: list[dict[str, Tensor]], loss_of) -> Tensor:
        """Squared norms of the gradient: the pieces' mean, and that of all together."""
        model, smoothing = self.job.model, self.job.recipe.label_smoothing
        with evaluating(model):
            return torch.stack(
                split_batch(
                    model, pieces, lambda part: loss_of(model, part, torch.tensor(part["labels"].numel()), smoothing)
                )
            )


def fetch(found: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], float | list[float]]:
    """All values in one read of the device; a vector becomes a list. What is not finite is left out."""
    flat = torch.cat([value.detach().float().reshape(-1) for value in found.values()]).tolist()
    values, start = {}, 0
    for key, value in found.items():
        part = [float(f"{number:.{DIGITS}g}") for number in flat[start : start + value.numel()]]
        start += value.numel()
        if all(map(math.isfinite, part)):
            values[key] = part if value.ndim else part[0]
    return values


def figures(values: dict[tuple[str, str], float | list[float] | None]) -> dict:
    """`NAME` for the run and `NAME/PART` for each part, as a row of metrics.jsonl has them."""
    row = {name: value for (name, part), value in values.items() if not part}
    for measure, summary in FIGURES.items():
        parts = {part: value for (name, part), value in values.items() if name == measure}
        if parts:
            row[measure] = float(f"{summary(list(parts.values())):.{DIGITS}g}")
            row |= {f"{measure}/{part}": value for part, value in parts.items()}
    return row


def _flat(values: list) -> list[float]:
    return [number for value in values for number in (value if isinstance(value, list) else [value])]
