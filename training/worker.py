"""One run of a sweep or a pipeline, in a process of its own that begins with everything imported.

May import `hub` and `data`. Importing torch and transformers takes longer than many a point: a server process imports
them once and forks for each run, computing nothing itself (OpenMP's threads do not survive a fork). What a run does
there is what its own command does with `--resume ID`, in the same folder, with the same records.
"""

import multiprocessing
import os
import sys
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

from data.console import cli
from data.workspace import Workspace
from hub.launch import OUTPUT
from hub.process import now, this_process
from hub.runs import Run


def begin(run: Run, workspace: Workspace) -> BaseProcess:
    """Start the process that trains an existing run, or goes on with it. It waits for its turn by itself."""
    # where there is no fork (Windows), each run imports everything itself
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__, run.module()])
    process = context.Process(target=train, args=(str(run.path.absolute()), str(workspace.root)), name=run.id)
    process.start()
    return process


def train(path: str, root: str) -> None:
    """What the process does: as if launched, its output in the run's folder, its end in its exit code."""
    run, workspace = Run(Path(path)), Workspace(root)
    with (run.path / OUTPUT).open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)
    run.update(status="queued", queued_at=now(), ended_at=None, error=None, process=this_process())
    resume = import_module(run.module()).resume  # the module of its command: pretraining, fine-tuning
    cli(lambda: resume(run, workspace, {}, force=False))
