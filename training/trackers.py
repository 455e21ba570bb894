"""Mirrors of a run's measurements: TensorBoard, trackio and W&B, by Accelerate's classes for them.

May import `hub`. The run's folder stays the record: a tracker that fails is named once and dropped, and the training
never knows. What they write is in the workspace, `trackers/<tracker>/`, beside the runs.
"""

import contextlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from data.console import one_line
from data.workspace import Workspace
from hub.runs import Run
from training.recipe import read_recipe
from training.saved import leaves

PROJECT = "llm-lab"  # under which trackio and W&B gather the runs


class Mirror:
    """Passes on to each tracker what a step measured.

    Args:
        trackers: by name, started.
        say: told, once, of a tracker that failed.
    """

    def __init__(self, trackers: dict[str, GeneralTracker], say: Callable[[str], object]):
        self.trackers, self.say = dict(trackers), say

    def log(self, step: int, values: dict) -> None:
        """The plain numbers among `values`; a list, or what is not finite, is in the run's folder alone."""
        numbers = {name: value for name, value in values.items() if _is_number(value)}
        for name, tracker in list(self.trackers.items()):
            self._try(name, lambda tracker=tracker: tracker.log(numbers, step=step))

    def close(self) -> None:
        for name, tracker in list(self.trackers.items()):
            self._try(name, tracker.finish)
        self.trackers.clear()

    def _try(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever a service, a disk or another version of a library raises
            del self.trackers[name]
            self.say(failure(name, error))


def check_trackers(names: Iterable[str]) -> None:
    """Raises ValueError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"train.trackers names {name}, which is not installed: pip install -e '.[trackers]', or leave it out"
            )


def open_mirror(run: Run, names: Iterable[str], step: int) -> Mirror:
    """Start the trackers for a run that goes on after `step`; one that cannot start is named and left out."""

    def say(line: str) -> None:
        run.log(line)
        print(f"warning: {line}", file=sys.stderr)

    started = {}
    for name in dict.fromkeys(names):
        try:
            folder = Workspace(run.path.absolute().parents[1]).room("trackers") / name
            folder.mkdir(exist_ok=True)
            with contextlib.redirect_stdout(sys.stderr):  # they greet; what a command prints is its result
                started[name] = start(name, run, folder, step)
        except Exception as error:
            say(failure(name, error))
    return Mirror(started, say)


def start(name: str, run: Run, folder: Path, step: int) -> GeneralTracker:
    """One tracker with the run's id as its name and the recipe as its configuration."""
    begun = (folder / run.id).exists()
    if name == "tensorboard":  # what was drawn after the checkpoint that the run goes on from did not happen
        tracker = TensorBoardTracker(run.id, folder, purge_step=step + 1 if begun else None)
    elif name == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(folder))  # read when the package is imported
        tracker = TrackioTracker(PROJECT, name=run.id, resume="allow")
    else:
        tracker = WandBTracker(PROJECT, name=run.id, id=run.id, dir=str(folder), resume="allow")
    tracker.start()
    if not (begun and name == "tensorboard"):  # which would list the run once more
        settings = leaves(read_recipe(run.path / "recipe.yaml"))
        tracker.store_init_configuration({key: _plain(value) for key, value in settings.items()})
    return tracker


def failure(name: str, error: Exception) -> str:
    return f"tracker {name} failed and is left out from now on: {one_line(error)[:300]}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: object) -> object:
    """As a tracker's table of settings can hold it."""
    return value if isinstance(value, bool | int | float | str) else str(value)
