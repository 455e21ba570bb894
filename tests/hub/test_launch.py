"""Launched processes and their line: true from the first moment, in order of arrival, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from data.workspace import Workspace
from hub import launch as module
from hub.launch import OUTPUT, launch
from hub.process import PROJECT, started
from hub.queue import line, turn, waiting_for
from hub.runs import Run

# What a training does as far as launching and queueing go: wait for its turn, and then for a word.
TRAINER = """
import sys, time
from pathlib import Path
from data.workspace import Workspace
from hub.queue import turn
from hub.runs import Run

_, resume, run_id, flag, folder = sys.argv
print("given", resume, flag, repr(sys.stdin.read()), flush=True)
workspace = Workspace(folder)
run = Run(workspace.root / "runs" / run_id)
with turn(run, workspace):
    run.update(status="running")
    with (workspace.root / "order").open("a") as order:
        order.write(f"{run_id}\\n")
    while not (run.path / "enough").exists():
        time.sleep(0.02)
    run.finish("completed")
"""


@pytest.fixture
def lab(make_run, workspace, tmp_path, monkeypatch):
    """Makes runs whose command is the trainer above; what is left of their processes at the end is killed."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    runs = []

    def make(name: str = "tales") -> Run:
        run = make_run(name)
        run.update(command=["python", "-m", "lab.trainer"])
        runs.append(run)
        return run

    yield make
    for run in runs:
        process = run.info()["process"]
        if process and started(process["pid"]) == process["started"]:
            os.kill(process["pid"], signal.SIGKILL)


def until(condition, seconds: float = 10.0):
    """Wait until the condition holds; what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.02)
    return value


def enough(run: Run) -> None:
    (run.path / "enough").touch()
    until(lambda: run.status == "completed")


def test_a_launched_process_needs_nobody(lab, workspace):
    run = lab()
    launch(run, workspace)
    info = run.info()
    assert run.status == info["status"] == "queued"
    assert info["queued_at"] >= info["created_at"]
    child = psutil.Process(info["process"]["pid"])
    assert child.pid != os.getpid() and os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
    until(lambda: run.status == "running")
    with pytest.raises(ValueError, match=f"{run.id} is running, in the hands of process {child.pid}"):
        launch(run, workspace)
    enough(run)
    until(lambda: not psutil.pid_exists(child.pid))  # no zombie stays
    assert (run.path / OUTPUT).read_text() == "given --resume --workspace ''\n"


def test_launched_again_the_output_is_appended(lab, workspace):
    run = lab()
    run.update(created_at="2020-01-01T00:00:00.000+00:00")
    for times in (1, 2):
        launch(run, workspace)
        assert run.status == "queued"  # at once, although the process before it is dead
        until(lambda: run.status == "running")
        os.kill(run.info()["process"]["pid"], signal.SIGKILL)
        until(lambda: run.status == "interrupted")
        assert len((run.path / OUTPUT).read_text().splitlines()) == times


def test_what_is_no_command_of_ours_is_not_started(lab, workspace):
    run = lab()
    run.update(command=["python", "-m", "http.server"])
    with pytest.raises(ValueError, match=r"http\.server is no command of this project"):
        launch(run, workspace)
    assert not run.info()["process"]


def test_the_launcher_may_die(lab, workspace, tmp_path):
    run = lab()
    code = f"""
import os, signal, sys
from pathlib import Path
from data.workspace import Workspace
from hub import launch
from hub.runs import Run
launch.PROJECT = Path({str(tmp_path)!r})
launch.launch(Run(Path({str(run.path)!r})), Workspace({str(workspace.root)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == -signal.SIGKILL
    until(lambda: run.status == "running")
    enough(run)


def test_one_trains_and_the_others_wait_in_order(lab, workspace):
    first, second, third = (lab(name) for name in ("one", "two", "three"))
    launch(first, workspace)
    until(lambda: first.status == "running")
    for run in (second, third):
        launch(run, workspace)
    assert [run.id for run in line(workspace)] == [second.id, third.id]
    assert waiting_for(first, workspace) is None
    assert waiting_for(second, workspace) == f"{second.id} waits for {first.id} to end; it is next in line"
    first.update(status="paused")
    assert waiting_for(third, workspace) == f"{third.id} waits for {first.id}, which is paused; it is number 2 in line"
    until(lambda: second.info()["progress"].get("phase") == "waiting")

    enough(first)
    until(lambda: second.status == "running")
    assert third.status == "queued"
    os.kill(second.info()["process"]["pid"], signal.SIGKILL)  # a dead process gives its turn back
    until(lambda: third.status == "running")
    assert second.status == "interrupted"
    assert waiting_for(third, workspace) is None
    enough(third)
    assert (workspace.root / "order").read_text().split() == [first.id, second.id, third.id]


def test_whoever_came_first_goes_first(lab, workspace):
    """Although it looked for the turn later: the line is by arrival, not by luck."""
    late, early = lab("late"), lab("early")
    with turn(lab("now"), workspace):
        for run in (late, early):
            launch(run, workspace)
            until(lambda run=run: run.info()["progress"].get("phase") == "waiting")
        early.update(queued_at="2020-01-01T00:00:00.000+00:00")
        assert waiting_for(late, workspace).endswith("number 2 in line")
    until(lambda: early.status == "running")
    assert late.status == "queued"
    enough(early)
    until(lambda: late.status == "running")
    enough(late)


def test_a_command_in_a_terminal_does_not_wait(lab, workspace, capsys):
    run, typed = lab(), lab("typed")
    with turn(typed, workspace):
        assert capsys.readouterr().err == ""
        launch(run, workspace)
        until(lambda: run.info()["progress"].get("phase") == "waiting")
        assert run.status == "queued"
    until(lambda: run.status == "running")
    with turn(typed, workspace):
        assert capsys.readouterr().err == f"{run.id} is training as well: both will be slower\n"
    assert run.status == "running"
    enough(run)


def test_the_line_of_an_empty_workspace(tmp_path):
    assert line(Workspace(tmp_path / "nothing")) == []
    assert not (tmp_path / "nothing").exists()


def test_a_spoilt_record_holds_nobody_up(lab, workspace):
    (lab("bad").path / "run.json").write_text(json.dumps({"process": {}}))
    run = lab()
    launch(run, workspace)
    until(lambda: run.status == "running")
    enough(run)
