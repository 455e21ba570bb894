"""Rules about the machine: time spent waiting for data, and a processor that is idle.

May import `hub` and `data`. Warnings all: a slow run is right.
"""

import numpy as np

from training.findings import ENOUGH, RECENT, Case, Rule, Seen

WAITING = 0.1  # share of a step
IDLE = 0.1  # of the measured matrix peak
LARGE = 10_000_000  # parameters below which a step is too short for a processor to be busy


def waits_for_data(case: Case) -> Seen | None:
    _, waits = case.curve("data_wait")
    if len(waits) < ENOUGH or (share := float(np.median(waits[-RECENT:]))) <= WAITING:
        return None
    return Seen(
        "warning",
        f"{share:.0%} of a step is spent waiting for its batch",
        f"at most {WAITING:.0%}",
        "Put the workspace on a faster disk; the packed tokens are read from it at each step.",
        [("share of the step", case.step, share)],
    )


def idle_processor(case: Case) -> Seen | None:
    _, used = case.curve("mfu")
    size = case.info["model"].get("parameters_non_embedding") or 0
    if size < LARGE or len(used) < ENOUGH or (share := float(np.median(used[-RECENT:]))) >= IDLE:
        return None
    faster = {} if case.train.compile is True else {"compile": True}
    whole = {"batch_size": 2 * case.train.batch_size} if case.train.accumulate == 1 else {"accumulate": 1}
    return Seen(
        "warning",
        f"{share:.1%} of the measured matrix peak is used",
        f"at least {IDLE:.0%}, for a model of {LARGE:,} parameters or more",
        "Compile the model, and give each forward pass more rows.",
        [("share of the peak", case.step, share)],
        {"train": {**faster, **whole}},
    )


RULES = (
    Rule("waits_for_data", "Steps wait for data", "A batch should be there before its step begins.", waits_for_data),
    Rule(
        "idle_processor",
        "The processor is mostly idle",
        "Well-run trainings use a third to a half of the peak (arXiv:2204.02311, appendix B).",
        idle_processor,
    ),
)
