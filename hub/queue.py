"""Whose turn it is to train: one run at a time in a workspace, in order of arrival.

May import `data`. Every waiting run is a process of its own, so the line moves on without a page and without whoever
started it. The turn is a lock that the training process holds; the system takes it back when that process dies.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from data.workspace import Workspace, write_atomic
from hub.runs import LIVE, Run, all_runs, is_mine, status_of

LOCK, HOLDER = ".turn.lock", ".turn"  # in runs/; the second names the run that holds the first
POLL = 0.5  # seconds between two looks


@contextmanager
def turn(run: Run, workspace: Workspace) -> Iterator[None]:
    """Inside the block the run may train.

    A run that was launched (`queued`, by its record this process's) waits until the turn is free and no run that came
    earlier waits. A command typed in a terminal is wanted now: it takes the turn if it is free, or says what it shares
    the machine with and goes on.
    """
    room = workspace.room("runs")
    lock = FileLock(room / LOCK)
    record = run.info()
    if record["status"] == "queued" and is_mine(record["process"]):
        run.heartbeat({"phase": "waiting"})
        while not _take(lock, run, workspace):
            time.sleep(POLL)
    else:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = _holder(workspace)
            other = holder.id if holder else "another run"
            print(f"{other} is training as well: both will be slower", file=sys.stderr)
    try:
        if lock.is_locked:
            write_atomic(room / HOLDER, run.id)
        yield
    finally:
        lock.release()


def waiting_for(run: Run, workspace: Workspace) -> str | None:
    """What a queued run waits for, in one sentence with its place in line; None for a run that is not queued."""
    if run.status != "queued":
        return None
    ids = [one.id for one in line(workspace)]
    place = ids.index(run.id) if run.id in ids else len(ids)
    holder = _holder(workspace)
    if holder is None and place == 0:
        return f"{run.id} is about to begin"
    where = "next in line" if place == 0 else f"number {place + 1} in line"
    if holder is None:
        return f"{run.id} waits for {ids[0]}, which is about to begin; it is {where}"
    what = ", which is paused" if holder.status == "paused" else " to end"
    return f"{run.id} waits for {holder.id}{what}; it is {where}"


def line(workspace: Workspace) -> list[Run]:
    """The runs that wait, in the order in which they came."""
    waiting = []
    for run in all_runs(workspace):
        try:
            record = run.info()
            if record["process"] and status_of(record) == "queued":
                waiting.append((record["queued_at"], run.id, run))
        except (ValueError, KeyError):
            continue  # a record that cannot be read waits for nothing
    return [run for *_, run in sorted(waiting, key=lambda entry: entry[:2])]


def _take(lock: FileLock, run: Run, workspace: Workspace) -> bool:
    """Take the turn if it is free and this run's. The line is read only while the turn is held: at most one reads."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    first = next(iter(line(workspace)), run)
    if first.id == run.id:
        return True
    lock.release()
    return False


def _holder(workspace: Workspace) -> Run | None:
    """The run whose turn it is."""
    try:
        run = Run(workspace.root / "runs" / (workspace.root / "runs" / HOLDER).read_text(encoding="utf-8"))
        return run if run.status in LIVE and run.status != "queued" else None
    except (OSError, ValueError):  # nobody had a turn yet, or that run was deleted
        return None
