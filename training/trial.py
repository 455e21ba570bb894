"""What the checks before a run are tried on: copies of its model, a few rows of its first batch, its own way to a loss.

May import `hub` and `data`. The run's model is read and never written, and random states are put back.

Shapes: R rows, T positions.
"""

import copy
import dataclasses
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from data.tokens import as_batch
from training import loop
from training.estimate import Estimate
from training.optimizers import build_optimizer
from training.recipe import OPTIMIZER_DEFAULTS

ROWS, LENGTH = 2, 32  # the batch that is memorised: 64 targets
STEPS = 30  # in which it should be
PATIENCE = 4.0  # seconds of CPU time for them


class Trial:
    """What the checks work on.

    Args:
        cost: the run's estimate.
        fresh: whether the weights are random yet.
    """

    def __init__(self, job: loop.Job, cost: Estimate, fresh: bool):
        self.job, self.cost, self.fresh = job, cost, fresh
        self.device = job.accelerator.device

    @cached_property
    def rows(self) -> np.ndarray:
        """(R, T+1) ids of the run's first batch, short ones: a few sequences show what many would."""
        return self.job.batches.at(0)[:ROWS, : LENGTH + 1]

    @cached_property
    def batch(self) -> loop.Batch:
        """As the loop makes it, (R, T)."""
        accelerator = self.job.accelerator  # of several processes the main one looks, and each slice is the same
        rows = as_batch(np.tile(self.rows, (accelerator.num_processes, 1)))
        return next(loop.slices(rows, 1, accelerator))

    @cached_property
    def memorised(self) -> tuple[torch.nn.Module, float, int]:
        """(a copy trained on the batch alone, its loss at last, the steps taken).

        Weights that begin at zero hide much of what an architecture does; in this copy none are left.
        """
        # Muon learns so few rows by heart at any width; AdamW would need another rate for each
        recipe = dataclasses.replace(self.job.recipe, optimizer="muon", weight_decay=0.0, **OPTIMIZER_DEFAULTS["muon"])
        model = self.copy().eval()  # without dropout
        optimizer, deadline = build_optimizer(model, recipe), time.process_time() + PATIENCE
        for step in range(STEPS + 1):
            loss, plain = self.losses(model)
            if step == STEPS or not math.isfinite(plain.item()) or time.process_time() > deadline:
                break
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return model, plain.item(), step

    def forget(self) -> None:
        """Let go of the copy that was memorised; it is made again where it is asked for."""
        self.__dict__.pop("memorised", None)

    def copy(self) -> torch.nn.Module:
        return copy.deepcopy(self.job.model)

    def losses(self, model) -> tuple[Tensor, Tensor]:
        """(what the run minimises, the loss that it records), by its own code, on the short batch."""
        with self.job.accelerator.autocast():
            return loop.losses_of(model, self.batch, (self.batch["labels"] != -100).sum(), self.job.recipe)


class Trainer:
    """A model with an optimizer and an Accelerator of its own, which takes steps as the loop does."""

    def __init__(self, trial: Trial, model: torch.nn.Module):
        mixed = trial.job.accelerator.mixed_precision
        self.accelerator = Accelerator(cpu=trial.device.type == "cpu", mixed_precision=mixed)
        self.plain, self.trial = model.train(), trial
        self.model, self.optimizer = self.accelerator.prepare(model, build_optimizer(model, trial.job.recipe))

    def step(self) -> None:
        recipe = self.trial.job.recipe
        self.accelerator.backward(self.trial.losses(self.model)[0])
        self.accelerator.clip_grad_norm_(self.plain.parameters(), recipe.max_grad_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@contextmanager
def undisturbed(threads: int = 1) -> Iterator[None]:
    """Random states are afterwards what they were before, and so is the number of CPU threads.

    Most trials are so small that a second thread gains little, and on a busy machine two wait for each other.
    """
    python, numpy, usual = random.getstate(), np.random.get_state(), torch.get_num_threads()
    device = torch.accelerator.current_accelerator(check_available=True)
    kind = device.type if device else "cuda"
    with torch.random.fork_rng(range(torch.accelerator.device_count()) if device else [], device_type=kind):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(usual)
    random.setstate(python)
    np.random.set_state(numpy)
