"""A run's process, started so that it needs nobody: not the terminal, not the page, not whoever started it.

May import `data`. One contract for every long job, whatever its kind: the run's folder is there with the command that
made it, and the same command with `--resume ID` trains it.
"""

import os
import shlex
import subprocess
import sys
import threading

from data.workspace import Workspace
from hub.process import PROJECT, boot_id, now, started
from hub.runs import LIVE, Run, status_of

OUTPUT = "output.log"  # what the process prints, in the run's folder


def launch(run: Run, workspace: Workspace) -> None:
    """Start the process that trains an existing run, or goes on with it, in a session of its own.

    It waits for its turn by itself (`hub.queue`). Raises ValueError where the run has a living process already, or was
    not made by a command of this project.
    """
    module = run.module()
    if not (PROJECT / module.replace(".", "/")).with_suffix(".py").is_file():
        raise ValueError(f"run {run.id} cannot be started: {module} is no command of this project")
    command = [sys.executable, "-m", module, "--resume", run.id, "--workspace", str(workspace.root)]
    # What the child writes to run.json waits for this block's end, so ours is the first word about the new process.
    with run.editing() as record, (run.path / OUTPUT).open("ab") as output:
        if record["process"] and status_of(record) in LIVE:
            raise ValueError(f"run {run.id} is {status_of(record)}, in the hands of process {record['process']['pid']}")
        child = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # a line is in the log when it is printed
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        record.update(status="queued", queued_at=now(), ended_at=None, error=None, process=process_of(child.pid))
        record["progress"]["phase"] = "starting"  # Python takes seconds to load what a training needs
    threading.Thread(target=child.wait, name=f"reaper of {run.id}", daemon=True).start()


def how_to_reach(run: Run) -> str:
    """Some lines for the terminal that a run was launched from."""
    where = run.workspace_flag()
    return (
        f"run {run.id} is in a process of its own; it goes on when this terminal is closed\n"
        f"  follow  tail -f {shlex.quote(str(run.path / OUTPUT))}\n"
        f"  status  python -m hub.runs show {run.id}{where}\n"
        f"  pause   python -m training.control pause {run.id}{where}\n"
        f"  stop    python -m training.control stop {run.id}{where}"
    )


def process_of(pid: int) -> dict:
    """As run.json records a process. One that has ended already gets a start that no living one can have."""
    return {"pid": pid, "started": started(pid) or 0.0, "boot_id": boot_id(), "heartbeat_at": now()}
