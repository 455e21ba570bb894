"""A process is known by its number, its start and its boot; status follows from that."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from hub import process
from hub.process import boot_id, git_state, is_alive, started, this_process, versions
from hub.runs import status_of


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def record(status: str = "running", **fields) -> dict:
    return {"status": status, "created_at": ago(0), "process": {**this_process(), **fields}}


def test_this_process_lives():
    assert is_alive(this_process())
    assert status_of(record()) == "running"


def test_a_silent_process_on_this_boot_still_lives():
    assert status_of(record(heartbeat_at=ago(9999))) == "running"


def test_a_dead_process_makes_interrupted():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = {"pid": child.pid, "started": started(child.pid)}
    assert status_of(record(**identity)) == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead but not collected: a zombie
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert status_of(record(**identity)) == "interrupted"
    child.communicate()
    assert status_of(record(**identity)) == "interrupted"


def test_a_reused_number_is_another_process():
    assert status_of(record(started=this_process()["started"] - 1)) == "interrupted"


@pytest.mark.parametrize(("age", "status"), [(1, "running"), (process.SILENCE + 5, "interrupted")])
def test_from_another_boot_the_heartbeat_decides(age, status):
    assert status_of(record(boot_id="another/pid:[1]", heartbeat_at=ago(age))) == status


@pytest.mark.parametrize(("age", "status"), [(1, "queued"), (process.SILENCE + 5, "interrupted")])
def test_a_queued_run_may_wait_for_its_process_a_moment(age, status):
    assert status_of({"status": "queued", "created_at": ago(age), "process": {}}) == status


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_an_ended_run_needs_no_process(status):
    assert status_of(record(status, pid=2**22 + 1, started=0.0)) == status


def test_the_start_agrees_with_psutil():
    """Ticks since boot against psutil's date: an independent reading of the same moment, to a clock adjustment."""
    ticks = started(os.getpid()) / os.sysconf("SC_CLK_TCK")
    assert abs(psutil.boot_time() + ticks - psutil.Process().create_time()) < 5


def test_one_boot_has_one_id():
    code = "from hub.process import boot_id; print(boot_id())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=process.PROJECT, check=True
    )
    assert other.stdout.strip() == boot_id()


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_git_state(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PROJECT", tmp_path)
    assert git_state() is None
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    assert git_state() is None  # no commit yet
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    assert len(git_state()["sha"]) == 40
    assert git_state()["dirty"] is False
    (tmp_path / "new").write_text("untracked files are not the project's")
    assert git_state()["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state()["dirty"] is True


def test_somebody_elses_commit_is_not_claimed(tmp_path, monkeypatch):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(process, "PROJECT", tmp_path / "unpacked")
    assert git_state() is None


def test_code_sha_follows_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PROJECT", tmp_path)
    (tmp_path / "modeling").mkdir()
    (tmp_path / "modeling" / "a.py").write_text("x = 1")
    first = process.code_sha()
    (tmp_path / "modeling" / "notes.txt").write_text("not code")
    assert process.code_sha() == first
    (tmp_path / "modeling" / "a.py").write_text("x = 2")
    assert process.code_sha() != first


def test_versions_and_machine():
    assert set(versions()) == {"python", *process.PACKAGES}
    found = process.machine()
    assert found["memory"] == psutil.virtual_memory().total
    assert found["threads"] >= 1
