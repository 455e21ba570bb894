"""Before a run: its checks and its estimate, told and recorded; red stops it. After it: how good the estimate was.

May import `hub` and `data`. In run.json, `checks` is a list of what was looked at; `estimate` holds what was expected,
and once the run has ended `measured` and `ratio` (measured over expected).
"""

import dataclasses
import json
import time
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from data.snapshots import SPLITS
from data.workspace import Workspace
from hub.checkpoints import step_of
from hub.runs import Run
from training import setup
from training.checks import GREEN, RED, Check, run_checks
from training.estimate import Estimate, estimate
from training.fork import beginning, forked_recipe, open_checkpoint
from training.loop import Job
from training.machine import forget_peak_memory, peak_memory
from training.pace import measure_pace, refine
from training.recipe import Recipe, build_recipe, read_recipe
from training.trial import Trial, undisturbed

SKIP, STOP = "skip", "stop"  # values of train.checks
COMPARED = ("memory", "seconds", "cpu_seconds")


def begin(job: Job, checkpoint: Path | None) -> None:
    """Check and estimate a run that begins; one that goes on was checked. Raises ValueError where red stops it."""
    run = job.run
    if job.recipe.checks == SKIP or checkpoint not in (None, beginning(run)):
        return
    checks: list[Check] = []
    if job.accelerator.is_main_process and not passed(run.info()):
        run.heartbeat({"phase": "checking"})
        recipe = build_recipe(read_recipe(run.path / "recipe.yaml"))
        checks, cost = look(job, recipe, Workspace(run.path.absolute().parents[1]), checkpoint)
        run.update(checks=[dataclasses.asdict(check) for check in checks], estimate=as_record(cost))
        for check in checks:
            run.log(f"check: {line(check)}")
    red = [check for check in checks if check.status == RED]
    if job.accelerator.num_processes > 1:
        red = broadcast_object_list([red])[0]
    if red and job.recipe.checks == STOP:
        raise ValueError(
            f"the check {red[0].name!r} is red: {red[0].seen}, where {red[0].expected} was expected; {red[0].advice}. "
            "To train all the same: --train.checks warn"
        )
    if job.accelerator.is_main_process:
        for check in checks:
            if check.status != GREEN:
                print(line(check))


def passed(info: dict) -> bool:
    """Whether a run was checked already and found good, as one that was killed before its first checkpoint."""
    return "checks" in info and all(check["status"] != RED for check in info["checks"])


def look(job: Job, recipe: Recipe, workspace: Workspace, begun: Path | None) -> tuple[list[Check], Estimate]:
    """All checks that can be done here, and the estimate, with measured steps where one process trains and they fit.

    Args:
        begun: the checkpoint that a fork goes on from; None for fresh weights.
    """
    with undisturbed(threads=torch.get_num_threads()):  # measuring the machine draws random numbers too
        cost = estimate(recipe, workspace)
        if begun is not None:
            cost = dataclasses.replace(cost, steps=cost.steps - step_of(begun))
        trial = Trial(job, cost, fresh=begun is None)
        checks = run_checks(trial)
        if job.accelerator.num_processes == 1 and checks[0].status != RED:
            cost = refine(cost, measure_pace(trial), job.recipe, evaluated_tokens(job))
    return checks, cost


def evaluated_tokens(job: Job) -> int:
    """About so many are scored in one evaluation of both splits, without cutting out the sequences."""
    tokens, recipe, total = job.evaluator.tokens, job.recipe, 0
    for split in SPLITS:
        whole, length = len(tokens.split(split)), recipe.context
        if recipe.start == "document":
            length = min(length, whole / len(tokens.starts(split)))
        total += min(whole, int(recipe.eval_sequences * length))
    return total


def as_record(cost: Estimate) -> dict:
    """The estimate as run.json has it: bytes and seconds."""
    return {
        "memory": cost.memory_total,
        "parts": cost.memory,
        "flops": cost.flops,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "how": cost.how,
    }


class Spent:
    """What a training really takes, from its making on."""

    def __init__(self, device: str):
        self.device = device
        forget_peak_memory(device)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def so_far(self) -> dict[str, float]:
        return {
            "memory": peak_memory(self.device),
            "seconds": round(time.perf_counter() - self.wall, 2),
            "cpu_seconds": round(time.process_time() - self.cpu, 2),
        }


def conclude(run: Run, spent: dict[str, float]) -> None:
    """Put what was measured beside the estimate of a run that one process trained from beginning to end."""
    expected = run.info().get("estimate")
    if expected is None:
        return
    known = [name for name in COMPARED if expected.get(name)]
    ratio = {name: round(spent[name] / expected[name], 3) for name in known}
    run.update(estimate={"measured": spent, "ratio": ratio})
    if said := judged(run.info()):
        run.log(said)


def judged(info: dict) -> str:
    """How good the estimate was, in a sentence; empty where nothing was compared."""
    expected = info.get("estimate") or {}
    measured, ratio = expected.get("measured"), expected.get("ratio")
    if not measured:
        return ""
    words = [f"memory {measured['memory'] / 1e9:.2f} GB ({off(ratio['memory'])})"]
    for name, called in (("seconds", "time"), ("cpu_seconds", "CPU time")):
        if name in ratio:
            words.append(f"{called} {measured[name]:.0f} s ({off(ratio[name])})")
    return "measured against the estimate: " + ", ".join(words)


def off(ratio: float) -> str:
    """How far from the estimate: in percent, or a factor where it is large."""
    return f"{ratio - 1:+.0%}" if ratio < 2 else f"{ratio:.3g} times as much"


def check_alone(parts: dict, workspace: Workspace, fork: str | None = None, as_json: bool = False) -> int:
    """Do the checks of a recipe and nothing else: no run is made. Prints a line for each; 2 where one is red."""
    if fork is None:
        recipe, checkpoint = build_recipe(parts), None
    else:
        parent, checkpoint = open_checkpoint(fork, workspace)
        recipe = forked_recipe(parent, checkpoint, parts, workspace)
    recipe.train, accelerator = setup.set_machine(recipe.train)
    if accelerator.num_processes > 1:
        raise ValueError("--check looks in one process: use `python -m training.pretrain`, not a launcher of several")
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    if checkpoint is not None:
        model = setup.load_weights(model, checkpoint)
    job = setup.make_job(recipe, data, None, model, accelerator)
    checks, cost = look(job, recipe, workspace, checkpoint)
    if as_json:
        found = {"checks": [dataclasses.asdict(check) for check in checks], "estimate": as_record(cost)}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print("\n".join([line(check) for check in checks] + [describe(cost)]))
    return 2 if any(check.status == RED for check in checks) else 0


def line(check: Check) -> str:
    """A check as one line of text."""
    advice = f"; {check.advice}" if check.advice else ""
    return f"{check.status:<7} {check.name}: {check.seen} (expected: {check.expected}){advice}"


def describe(cost: Estimate) -> str:
    """The estimate as one line of text."""
    time_words = "" if cost.seconds is None else f", about {cost.seconds:,.0f} s ({cost.how['time']})"
    return f"estimate: {cost.parameters:,} parameters, about {cost.memory_total / 1e9:.2f} GB{time_words}"
