"""`python -m training.control`: pause, resume, stop a run, or have it save; what the page's buttons do.

May import `hub` and `data`. A request is a small file in the run's folder, addressed to the process that trains the
run: that one looks for it between two steps (`training.listener`), and one left for a dead process moves nobody.
"""

import contextlib
import json
import os
import signal
import time

import psutil
from filelock import FileLock

from data.console import Parser, cli, nearest
from data.workspace import Workspace, read_json, write_json
from hub.launch import launch
from hub.process import boot_id, started, this_process
from hub.process import now as timestamp
from hub.runs import LIVE, Run, status_of

REQUEST, LOCK = ".request.json", ".request.lock"
# What a run in each status can be asked for; a completed one can be forked.
POSSIBLE = {
    "queued": ("stop",),
    "running": ("pause", "save", "stop"),
    "paused": ("resume", "save", "stop"),
    "stopping": (),
    "completed": (),
    "failed": ("resume",),
    "interrupted": ("resume",),
}
VERBS = {
    "pause": "wait after the step at hand, keeping everything in memory",
    "resume": "go on: a paused run in the process that waits, an interrupted or failed one in a new process",
    "stop": "save a checkpoint and end; `resume` goes on from it",
    "save": "write a checkpoint now and go on",
}
SAYS = {
    "pause": "pauses after the step at hand",
    "resume": "goes on",
    "save": "saves after the step at hand",
    "stop": "saves and ends after the step at hand",
}
GRACE = 5.0  # seconds a process has to end by itself before it is killed
DYING = 5.0  # seconds after which a killed process should be gone


def request(run: Run, verb: str, now: bool = False) -> str:
    """Ask the run's process for something; returns what is going to happen, in one sentence.

    Args:
        verb: `pause`, `resume`, `stop` or `save`.
        now: with `stop`: end a process that does not answer; what it trained since its last checkpoint is lost.

    Raises ValueError where that makes no sense for the run as it stands.
    """
    if verb not in VERBS:
        raise ValueError(f"a run cannot be asked to {verb!r}; {nearest(verb, VERBS)}")
    if now and verb != "stop":
        raise ValueError(f"only stop can act at once: {verb} waits for the end of the step at hand")
    status = run.status
    if not (verb in POSSIBLE[status] or (now and status in LIVE)):
        raise ValueError(f"run {run.id} is {status}: it cannot {verb} now ({_hint(run, status)})")
    if status in LIVE and not run.info()["process"]:
        raise ValueError(f"run {run.id} was made this moment and has no process yet: ask again")
    if now:
        return end(run)
    if verb == "resume" and status != "paused":
        launch(run, Workspace(run.path.absolute().parents[1]))
        return f"{run.id} goes on in a process of its own when its turn comes"
    leave(run, verb)
    if verb == "stop":
        with run.editing() as record:  # said at once, for the step at hand may be a long one
            if status_of(record) in LIVE:
                record["status"] = "stopping"
    return f"{run.id} " + ("leaves the line" if status == "queued" else SAYS[verb])


def leave(run: Run, verb: str) -> None:
    """Put a request behind those that the process has not read yet."""
    with FileLock(run.path / LOCK):
        process = run.info()["process"]
        write_json(run.path / REQUEST, {"process": process, "verbs": [*_left(run, process), verb], "at": timestamp()})


def waiting(run: Run) -> list[str]:
    """What this process has been asked for and has not taken yet, oldest first."""
    return _left(run, this_process())


def take(run: Run) -> list[str]:
    """The same, taken: the file is gone, a stale one too. For the one process that trains the run."""
    if not (run.path / REQUEST).exists():  # asked between all steps: a look must cost microseconds
        return []
    with FileLock(run.path / LOCK):
        verbs = waiting(run)
        (run.path / REQUEST).unlink(missing_ok=True)
    return verbs


def _left(run: Run, process: dict) -> list[str]:
    """What the file holds for this very process: what was left for an earlier one is nobody's any more."""
    try:
        request = read_json(run.path / REQUEST)
    except FileNotFoundError:
        return []
    same = all(request["process"].get(key) == process.get(key) for key in ("pid", "started", "boot_id"))
    return request["verbs"] if same else []


def end(run: Run) -> str:
    """End the run's process and all its children: by SIGTERM, on which it saves, then by SIGKILL."""
    process = run.info()["process"]
    pid = process.get("pid")
    if process.get("boot_id") != boot_id():
        raise ValueError(f"run {run.id} is trained on another machine: only there can its process be ended at once")
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):  # it may end by itself in the meantime
        # A launched process leads a group of its own. One that does not shares it with whoever started it.
        group = pid if os.getpgid(pid) == pid else None
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        os.kill(pid, signal.SIGTERM)  # to it alone: its children are needed for saving
        _wait(process, GRACE)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        if group:
            os.killpg(group, signal.SIGKILL)
    if not _wait(process, DYING):
        raise ValueError(f"process {pid} of run {run.id} cannot be ended: it hangs in the system, as on a dead disk")
    with run.editing() as record:
        if record["status"] in LIVE:
            record.update(status="interrupted", ended_at=timestamp())
    return f"the process of {run.id} has ended"


def _wait(process: dict, seconds: float) -> bool:
    """Whether the process has ended, as soon as it has or when the time is over."""
    deadline = time.monotonic() + seconds
    while (alive := started(process["pid"]) == process["started"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive


def _hint(run: Run, status: str) -> str:
    if status == "completed":
        return f"to train it further, fork it: python -m training.pretrain --fork {run.id} --train.steps N"
    if status == "stopping":
        return "it ends after the step at hand; a process that does not answer is ended by stop --now"
    return f"it can {' or '.join(POSSIBLE[status])}"


def main() -> int:
    parser = Parser(
        prog="python -m training.control",
        description="Tell a training run what to do; it acts between two steps.",
        epilog="\n".join(f"  {verb:<8}{what}" for verb, what in VERBS.items())
        + "\n\nexamples:\n  python -m training.control pause latest"
        + "\n  python -m training.control stop tales-1a2b3c --now",
    )
    parser.add_argument("verb", metavar="|".join(VERBS), help="what it should do")
    parser.add_argument("run", metavar="RUN", help="an id, the beginning of one, a name (its newest) or `latest`")
    parser.add_argument("--now", action="store_true", help="with stop: end a process that does not answer")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    parser.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args()
    run = Run.open(Workspace(given.workspace), given.run)
    says = request(run, given.verb, given.now)
    answer = {"run": run.id, "verb": given.verb, "status": run.status, "says": says}
    print(json.dumps(answer, indent=2, ensure_ascii=False) if given.json else says)
    return 0


if __name__ == "__main__":
    cli(main)
