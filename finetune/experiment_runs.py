"""An experiment's runs: each an ordinary fine-tuning in a process of its own, none repeated that has come to its end.

May import `training`, `hub` and `data`. Which runs are an experiment's own is written in the runs themselves. One whose
loss is no longer a number has come to its end too: that is what was to be found out.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm

from data.workspace import Workspace, read_json, write_json
from finetune.experiment_base import find_base, make_base
from finetune.experiment_plan import Plan
from finetune.experiment_verdict import curve_of, verdict
from finetune.launch import create
from hub.metrics import finite
from hub.overview import records
from hub.runs import LIVE, Run, status_of
from training.sweep_time import Pace, minutes
from training.worker import begin

POLL = 0.5  # seconds between two looks at the run that trains
MEASURED = "measured"  # the folder of the job in which what was measured on its runs is kept
DIVERGED = "diverged"  # how a run ended whose loss was no longer a number
DONE = ("completed", DIVERGED)
Measure = Callable[[Run, Plan, Workspace, Callable[[str], object]], dict]


class Key(NamedTuple):
    """One run of an experiment."""

    setting: int
    seed: int


def runs_of(job: Run, workspace: Workspace) -> dict[Key, Run]:
    """The experiment's runs."""
    found: dict[Key, Run] = {}
    for path, info in records(workspace):  # newest first
        mine = (info or {}).get("inputs", {}).get("experiment") or {}
        if mine.get("id") == job.id:
            found.setdefault(Key(mine["setting"], mine["seed"]), Run(path))
    return found


def ending(run: Run) -> str:
    """The run's status, `diverged` where it failed because its loss was no longer a number."""
    info = run.info()
    status = status_of(info)
    return DIVERGED if status == "failed" and "the loss is not a number" in (info["error"] or "") else status


def outcome(job: Run, run: Run) -> dict:
    """What there is of one run, as the results hold it."""
    info, status = run.info(), ending(run)
    result, kept = info["result"], job.path / MEASURED / f"{run.id}.json"
    done = status in DONE
    curve = curve_of(run) if done else None
    return {
        "run": run.id, "status": status, "error": info["error"],
        "val_loss": result.get("val_loss") if status == "completed" else None,
        "train_loss": result.get("train_loss") if status == "completed" else None,
        "seconds": result.get("seconds"), "trainable": info["model"].get("parameters_trainable"),
        "start": curve and curve.start, "end": curve and finite(curve.end),
        "verdict": verdict(curve)._asdict() if done else None,
        "curve": curve and curve.as_json(),
        "measured": read_json(kept) if done and kept.is_file() else None,
    }  # fmt: skip


class Work:
    """An experiment while it is carried out: its runs, how far they are, and what is said about it.

    Args:
        measure: looks at a finished run besides; told how to say what it does. Kept, and not repeated.
        changed: called whenever a run has come to its end.
    """

    def __init__(self, job: Run, plan: Plan, workspace: Workspace, measure: Measure | None, changed: Callable):
        self.job, self.plan, self.workspace, self.measure, self.changed = job, plan, workspace, measure, changed
        self.runs = runs_of(job, workspace)
        # all settings with one seed first: an early look compares like with like
        self.todo = {Key(n, seed): 0.0 for seed in plan.seeds for n in range(len(plan.settings))}
        self.count = len(self.todo)
        self.pace = Pace([None] * len(plan.settings))
        self.bar = tqdm(total=self.count, bar_format="{percentage:3.0f}%|{bar:30}| {postfix}", disable=None)

    def carry_out(self) -> None:
        """All runs that are not at their end, one after another."""
        with self.bar:
            self.base = self.find_base()
            for key in list(self.todo):
                self.take(key)

    def find_base(self) -> str:
        """The model that is tuned, the same for all runs, also after an interruption; trained first if need be."""
        known = self.job.info()["outputs"].get("base") or self.plan.base or find_base(self.workspace)
        if known is None:
            run = make_base(self.workspace)
            self.bar.write(f"there is no small base in this workspace yet: training one, {run.id}", file=sys.stderr)
            self.train(run, lambda share: self.tell(f"training the base first, {share:.0%}"))
            if run.status != "completed":
                raise ValueError(f"the small base, {run.id}, could not be trained: {run.info()['error'] or run.status}")
            known = run.id
        self.job.update(outputs={"base": known})
        return known

    def take(self, key: Key) -> None:
        """One run, from wherever it stands to its end. Raises ValueError where it fails, unless it diverged.

        Such a mistake would spoil the others as well, and what it names can be mended before all goes on.
        """
        run = self.runs.get(key) or self.make(key)
        where = f"{self.count - len(self.todo) + 1}/{self.count} {self.name(key)}"
        began, before = time.monotonic(), ending(run) in DONE
        if not before:
            self.train(run, lambda share: self.told(key, share))
        if ending(run) not in DONE:
            raise ValueError(f"run {run.id} did not come to its end: {run.info()['error'] or run.status}")
        kept = self.job.path / MEASURED / f"{run.id}.json"
        if self.measure and ending(run) == "completed" and not kept.is_file():
            found = self.measure(run, self.plan, self.workspace, lambda what: self.tell(f"{self.name(key)}: {what}"))
            kept.parent.mkdir(exist_ok=True)
            write_json(kept, found)
        if not before:
            self.pace.finished(key, time.monotonic() - began)
        del self.todo[key]
        self.changed()
        found = outcome(self.job, run)
        value = "" if found["val_loss"] is None else f", validation loss {found['val_loss']:.4f}"
        said = "finished before" if before else found["status"]
        self.bar.write(f"{where}: {said}{value}; {run.id}", file=sys.stderr)
        self.tell("")

    def make(self, key: Key) -> Run:
        """An ordinary run, which says itself whose it is."""
        parts = self.plan.recipe_of(*key, self.base)
        run = self.runs[key] = create(parts, self.workspace, self.plan.run_name(*key))
        label = self.plan.settings[key.setting].label
        run.update(inputs={"experiment": {"id": self.job.id, "label": label, **key._asdict()}})
        return run

    def train(self, run: Run, tell: Callable[[float], object]) -> None:
        """In a process of its own, which saves and ends when this one is stopped."""
        if run.status in LIVE and run.info()["process"]:  # the process outlived the experiment that began it
            while run.status in LIVE:
                time.sleep(POLL)
                tell(share_of(run))
            return
        process = begin(run, self.workspace)
        try:
            while process.is_alive():
                process.join(POLL)
                tell(share_of(run))
        except BaseException:
            process.terminate()
            process.join()
            raise

    def told(self, key: Key, share: float) -> None:
        self.todo[key] = share
        self.tell(f"{self.name(key)}, {share:.0%}")

    def tell(self, what: str) -> None:
        """How far the experiment is, to whoever looks at the terminal or at run.json."""
        left, finished = self.pace.left(self.todo), self.count - len(self.todo)
        self.job.heartbeat({"step": finished, "steps": self.count, "eta_seconds": left, "phase": what or None})
        self.bar.n = finished + sum(self.todo.values())
        eta = "" if left is None else f"about {minutes(left)} left"
        self.bar.set_postfix_str("  ".join(filter(None, (f"{finished}/{self.count} runs", what, eta))))

    def name(self, key: Key) -> str:
        return f"{self.plan.settings[key.setting].label}, seed {key.seed}"


def share_of(run: Run) -> float:
    """How much of a run is done, from 0 to 1."""
    at = run.info()["progress"]
    return (at.get("step") or 0) / at["steps"] if at.get("steps") else 0.0
