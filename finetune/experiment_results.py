"""An experiment's results file: what was planned, what each run came to, and, when all have, what follows from it.

May import `training`, `hub` and `data`. `results.json` holds all that is known; the report and its figures are made of
it alone, so that they can be made again.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.workspace import read_json, write_atomic, write_json
from finetune.experiment_plan import Plan
from finetune.experiment_report import markdown, save_figures
from finetune.experiment_runs import DONE, Key, outcome
from hub.runs import Run
from training.sweep_results import mean_and_interval

RESULTS, REPORT = "results.json", "report.md"
WAITING = {"run": None, "status": "waiting"}


def results_of(job: Run) -> dict | None:
    """What the experiment has found so far; None where there is nothing that can be read."""
    try:
        return read_json(job.path / RESULTS)
    except (OSError, ValueError):
        return None


def collect(job: Run, experiment, plan: Plan, runs: Mapping[Key, Run]) -> dict:
    """The results so far, written into the folder. What follows from them only when all runs are at their end: some of
    them would rank the settings by those that happened to be first.

    Args:
        experiment: the `finetune.experiment.Experiment`.
    """
    known = {key: outcome(job, run) for key, run in runs.items()}
    settings = [
        {**one._asdict(), "runs": [{"seed": seed, **known.get(Key(n, seed), WAITING)} for seed in plan.seeds]}
        for n, one in enumerate(plan.settings)
    ]
    found = {
        "experiment": plan.experiment, "id": job.id, "title": experiment.title, "question": experiment.question,
        "finished": sum(run["status"] in DONE for one in settings for run in one["runs"]),
        "runs": len(plan.settings) * len(plan.seeds),
        "conclusion": None, "tables": [], "figures": [], "limits": list(experiment.limits),
        "command": shlex.join(plan.command), "seeds": list(plan.seeds), "parts": plan.parts, "options": plan.options,
        "origin": origin(list(runs.values())), "settings": settings,
    }  # fmt: skip
    if found["finished"] == found["runs"]:
        found = concluded(job.path, experiment, found)
    write_json(job.path / RESULTS, found)
    return found


def concluded(folder: Path, experiment, found: dict) -> dict:
    """The results with what follows from them; the figures and the report are written into the folder."""
    found = found | experiment.findings(found)
    found["figures"] = save_figures(folder, experiment.figures(found))
    write_atomic(folder / REPORT, markdown(found))
    return found


def origin(runs: Sequence[Run]) -> dict:
    """What was tuned to what, and on which machine, by the runs' own records; nothing before there is one."""
    if not runs:
        return {}
    info = min((run.info() for run in runs), key=lambda one: one["created_at"])
    return {
        **{name: info["inputs"].get(name) for name in ("base", "examples")},
        **{name: info[name] for name in ("model", "machine", "versions")},
    }


def summary(values: Sequence[float | None]) -> dict:
    """Of one setting's seeds: how many there are, mean, and the mean's 95 % interval by Student's t."""
    known = [value for value in values if value is not None]
    mean, interval = mean_and_interval(known)
    return {"n": len(known), "mean": mean, "interval": interval}


def difference(ours: Sequence[float | None], theirs: Sequence[float | None]) -> dict:
    """The same of `ours - theirs`, seed by seed: runs of one seed share the order of their data, and much scatter."""
    return summary([a - b if a is not None and b is not None else None for a, b in zip(ours, theirs, strict=True)])


def excludes_zero(found: Mapping) -> bool:
    """Whether the whole interval lies on one side of 0; without an interval nothing is excluded."""
    return found["interval"] is not None and (found["interval"][0] > 0 or found["interval"][1] < 0)
