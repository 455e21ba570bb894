"""Long jobs that are made of runs, or of other steps: their folder, which keeps a run.json as a run's folder does.

May import `hub` and `data`. A `Run` object on such a folder has the status, heartbeat, lock, stop request and detached
launch of any run; only it is no model, and so it stands in a room of its own.
"""

from collections.abc import Callable
from pathlib import Path

from data.console import nearest
from data.workspace import SCHEMA, Workspace, new_folder, write_json
from hub.process import code_sha, git_state, now, versions
from hub.runs import LATEST, Run

STOPPED = 130  # exit code after Ctrl-C or a request to stop, as shells have it


def make_job(path: Path, kind: str, command: list[str], fill: Callable[[Path], object]) -> Run:
    """A new folder with its run.json, visible only when `fill` has put into it what the job begins with."""
    record = {
        "schema": SCHEMA, "id": path.name, "name": path.name.rpartition("-")[0], "kind": kind, "status": "queued",
        "created_at": now(), "queued_at": None, "started_at": None, "ended_at": None,
        "command": command, "seed": None, "machine": {}, "versions": versions(), "git": git_state(),
        "inputs": {}, "outputs": {}, "model": {}, "progress": {}, "result": {}, "process": {},
        "code_sha": code_sha(), "error": None,
    }  # fmt: skip
    with new_folder(path) as folder:
        write_json(folder / "run.json", record)
        fill(folder)
    return Run(path)


def all_jobs(workspace: Workspace, room: str) -> list[Run]:
    """The jobs of a room (`sweeps`, `pipelines`), newest first, broken ones last."""
    folders = [path.parent for path in (workspace.root / room).glob("[!.]*/run.json")]
    return [Run(path) for path in sorted(folders, key=_created, reverse=True)]


def open_job(workspace: Workspace, room: str, ref: str) -> Run:
    """By id, name (its newest), the beginning of one id alone, or `latest`. Raises ValueError where there is none."""
    jobs, what = all_jobs(workspace, room), room.removesuffix("s")
    if not jobs:
        raise ValueError(f"no {what} {ref!r}: there are no {room} yet in {workspace.root / room}")
    if ref == LATEST:
        return jobs[0]
    exact = [job for job in jobs if job.id == ref] or [job for job in jobs if job.name == ref][:1]
    found = exact or [job for job in jobs if ref and job.id.startswith(ref)]
    if len(found) != 1:
        hint = nearest(ref, {LATEST, *(job.id for job in jobs), *(job.name for job in jobs)})
        raise ValueError(f"{ref!r} names {len(found) or 'no'} {room if found else what} of {workspace.root}; {hint}")
    return found[0]


def _created(path: Path) -> tuple[str, str]:
    try:
        return Run(path).info()["created_at"], path.name
    except (ValueError, KeyError):
        return "", path.name
