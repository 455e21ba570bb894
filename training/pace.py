"""What an optimizer step really takes here, and an estimate that knows it.

May import `hub` and `data`. Two steps are measured uncompiled, as compiling takes longer than all checks together.
"""

import dataclasses
import math
import time

import torch

from training import loop
from training.estimate import Estimate
from training.recipe import TrainRecipe
from training.trial import Trainer, Trial, undisturbed

PATIENCE = 4.0  # seconds of CPU time after which no further step is measured
FORWARD = 1 / 3  # of a step: the backward pass computes twice as much
LOOK = 4096  # tokens whose training takes as long as a look inside the model (benchmarks/LOG.md, diagnostics)
COMPILED, COMPILING = 0.7, 40.0  # of an uncompiled step's time on two cores, and seconds before the first one


@dataclasses.dataclass(frozen=True)
class Pace:
    """What one real optimizer step takes here, uncompiled, and how many were measured."""

    seconds: float
    cpu_seconds: float
    steps: int


def measure_pace(trial: Trial) -> Pace:
    """Two real steps on the run's real batches, after one that warms up; only that one where it takes too long."""
    trainer = Trainer(trial, trial.copy())
    job = dataclasses.replace(trial.job, model=trainer.plain, accelerator=trainer.accelerator)
    clocks = []
    with undisturbed(threads=torch.get_num_threads()):
        for step in range(3):
            clocks.append((time.perf_counter(), time.process_time()))
            loop.optimizer_step(job, trainer.model, trainer.optimizer, step, step)
            if trial.device.type != "cpu":
                torch.accelerator.synchronize()
            if time.process_time() - clocks[0][1] > PATIENCE:
                break
    clocks.append((time.perf_counter(), time.process_time()))
    counted = clocks[1:] if len(clocks) > 2 else clocks
    (wall, cpu), (wall_end, cpu_end), steps = counted[0], counted[-1], len(counted) - 1
    return Pace((wall_end - wall) / steps, (cpu_end - cpu) / steps, steps)


def refine(cost: Estimate, pace: Pace, train: TrainRecipe, evaluated: int) -> Estimate:
    """The estimate with the time that real steps took here.

    Args:
        evaluated: tokens scored in one evaluation.
    """
    evaluations, looks = (math.ceil(cost.steps / every) for every in (train.eval_every, train.diagnose_every))
    others = (evaluations * FORWARD * evaluated + looks * LOOK) / (train.batch_size * train.context)  # in steps
    steps = cost.steps * (COMPILED if train.compile else 1.0) + others
    compiling = COMPILING if train.compile else 0.0
    how = f"{pace.steps} real step{'' if pace.steps == 1 else 's'} took {pace.seconds:.3g} s each here"
    if train.compile:
        how += f"; compiled ones about {COMPILED:.0%} of that, after {COMPILING:.0f} s of compiling"
    return dataclasses.replace(
        cost,
        seconds=steps * pace.seconds + compiling,
        cpu_seconds=steps * pace.cpu_seconds + compiling,
        how={**cost.how, "time": f"{how}; evaluations and looks inside are counted in"},
    )
