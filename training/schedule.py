"""The learning rate as a pure function of the step: nothing of it is ever saved. Standard library only."""

import math


def warmup(step: int, warmup_steps: int) -> float:
    """Rises linearly to 1; the first step is already above 0, so that no step is wasted."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def constant(progress: float, floor: float, decay_fraction: float) -> float:
    return 1.0


def cosine(progress: float, floor: float, decay_fraction: float) -> float:
    """Half a cosine from 1 to `floor` (arXiv:1608.03983 without restarts)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_stable_decay(progress: float, floor: float, decay_fraction: float) -> float:
    """Constant, then linear to `floor` over the last `decay_fraction` of the run (arXiv:2404.06395)."""
    remaining = (1 - progress) / decay_fraction if decay_fraction else 1.0
    return floor + (1 - floor) * min(1.0, remaining)


SCHEDULES = {"constant": constant, "cosine": cosine, "wsd": warmup_stable_decay}


def rate_at(step: int, recipe) -> float:
    """What the peak rates are multiplied by at `step` (0-based) of a `TrainRecipe` with its `steps` known."""
    after = max(0, step - recipe.warmup_steps)
    progress = min(1.0, after / max(1, recipe.steps - recipe.warmup_steps))
    shape = SCHEDULES[recipe.schedule](progress, recipe.final_rate_fraction, recipe.decay_fraction)
    return warmup(step, recipe.warmup_steps) * shape
