"""Fetches that run by themselves: started, looked at, stopped, continued and removed by whoever holds the page.

Uses the other modules of `data`. A fetch is a process that needs nobody; its
partial folder is all that is known of it, so that a page that was started again finds it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from data.fetch import find
from data.hub_corpora import Request, command_words
from data.partial import Partial, partials
from data.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 5.0


def start(name: str, request: Request, workspace: Workspace) -> Partial:
    """Leave a process fetching `name`. Raises ValueError where the snapshot is there or a process is at it already."""
    if corpus := find(request, workspace):
        raise ValueError(f"{corpus.name} is there already, fetched with the same choices")
    partial = Partial.of(workspace, name, request)
    partial.create(name, request)
    go_on(partial)
    return partial


def go_on(partial: Partial) -> None:
    """Start the process of a fetch, from where the last one ended."""
    if partial.progress()["status"] == "running":
        raise ValueError(f"{partial.id} is being fetched already")
    name, request = partial.request()
    words = [*command_words(name, request), f"--workspace={partial.workspace.root}"]
    partial.tell("starting")
    with partial.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "data.corpora", *words],
            cwd=PROJECT,
            env={**os.environ, "USE_TORCH": "0"},  # datasets would import torch, which takes seconds and is not needed
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    threading.Thread(target=child.wait, name=f"reaper of {partial.id}", daemon=True).start()


def stop(partial: Partial) -> None:
    """End the process of a fetch; what it has fetched stays. Raises ValueError where none is at work."""
    told = partial.progress()
    if told["phase"] == "starting":  # the process has not said which it is
        raise ValueError(f"{partial.id} has only just been started: try again in a moment")
    if told["status"] != "running":
        raise ValueError(f"{partial.id} is not being fetched now")
    os.kill(told["pid"], signal.SIGTERM)
    for _ in range(50):
        if not partial.is_running():
            return
        time.sleep(STOP_SECONDS / 50)
    raise ValueError(f"{partial.id} does not stop: its process is {told['pid']}")


def discard(partial: Partial) -> None:
    """Remove what was fetched in part. Raises ValueError while a process is at it."""
    if partial.progress()["status"] in ("running", "starting"):
        raise ValueError(f"{partial.id} is being fetched: stop it first")
    partial.remove()


def fetches(workspace: Workspace) -> list[dict]:
    """All that are not finished: `id, name, dataset, config, status, phase, split, documents, bytes, share,
    eta_seconds, error` and the `command` that goes on; what is not known is None."""
    rows = []
    for partial in partials(workspace):
        try:
            name, request = partial.request()
        except (OSError, ValueError, KeyError, TypeError):  # it is gone by now, or somebody wrote into it
            continue
        told = partial.progress()
        known = ("status", "phase", "split", "documents", "bytes", "share", "eta_seconds", "error")
        row = {"id": partial.id, "name": name, "dataset": request.dataset, "config": request.config}
        row |= {key: told.get(key) for key in known}
        rows.append(row | {"command": command_words(name, request)})
    return rows


def by_id(workspace: Workspace, wanted: str) -> Partial:
    """One that is not finished. Raises ValueError where there is none of this id."""
    for partial in partials(workspace):
        if partial.id == wanted:
            return partial
    raise ValueError("this fetch is finished or was removed")
