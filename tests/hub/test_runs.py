"""The run folder: made whole, found by what people call it, updated without loss, trained by one process at a time."""

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

from data.workspace import Workspace
from hub import runs
from hub.process import PROJECT
from hub.runs import Run, UnknownRun, all_runs

HOLDER = """
import sys, time
from data.workspace import Workspace
from hub.runs import Run
run = Run.open(Workspace(sys.argv[1]), "latest")
with run.lock():
    run.update(status="running", process=__import__("hub.process").process.this_process())
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_new_run_is_complete(run, workspace):
    assert re.fullmatch(r"tales-[0-9a-f]{6}", run.id)
    assert run.path == workspace.root / "runs" / run.id
    info = run.info()
    assert info["id"] == run.id
    assert info["name"] == run.name == "tales"
    assert info["schema"] == 1
    assert info["kind"] == "pretrain"
    assert info["inputs"]["corpus"]["name"] == "tales"
    assert info["versions"]["torch"]
    assert len(info["code_sha"]) == 64
    assert run.status == "queued"
    assert info["process"] == info["machine"] == {}  # those of the process that will train it
    assert (run.path / "recipe.yaml").read_text().startswith("data:")
    assert sorted(path.name for path in run.path.parent.iterdir()) == [run.id]


def test_a_run_that_cannot_be_made_leaves_nothing(make_run, workspace, monkeypatch):
    monkeypatch.setattr(runs, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        make_run()
    assert list((workspace.root / "runs").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-a", "a b", "latest"])
def test_bad_names_are_refused(make_run, name):
    with pytest.raises(ValueError, match="name"):
        make_run(name)


def test_a_life(run):
    run.start_process()
    assert run.status == "running"
    first = run.info()
    assert first["started_at"]
    assert first["machine"]["threads"] >= 1
    run.finish("completed", result={"val_loss": 1.5})
    assert run.status == "completed"
    assert run.info()["result"] == {"val_loss": 1.5}
    assert run.info()["ended_at"] >= first["started_at"]
    run.finish("failed", error="the loss is not a number")
    run.start_process()  # again: the first start stays, the error goes
    again = run.info()
    assert (again["started_at"], again["ended_at"], again["error"]) == (first["started_at"], None, None)


def test_names_repeat_and_ids_do_not(make_run, workspace):
    first, second, other = make_run(), make_run(), make_run("verdict")
    for run, when in ((first, "2026-01-01"), (second, "2026-01-02"), (other, "2026-01-03")):
        run.update(created_at=f"{when}T00:00:00.000+00:00")
    assert [run.id for run in all_runs(workspace)] == [other.id, second.id, first.id]
    assert Run.open(workspace, "tales").id == second.id
    assert Run.open(workspace, first.id).id == first.id
    assert Run.open(workspace, "latest").id == other.id
    assert Run.open(workspace, "verd").id == other.id
    with pytest.raises(ValueError, match="begins 2 ids"):
        Run.open(workspace, "tale")


@pytest.mark.parametrize("ref", ["tails", "../../etc", "", "*"])
def test_unknown_references(run, workspace, ref):
    with pytest.raises(UnknownRun, match="no run") as caught:
        Run.open(workspace, ref)
    assert "tales" in str(caught.value)


def test_no_runs_yet(tmp_path):
    with pytest.raises(UnknownRun, match="no runs yet"):
        Run.open(Workspace(tmp_path / "empty"), "latest")
    assert not (tmp_path / "empty").exists()  # looking makes nothing


def test_a_run_whose_record_is_spoilt_is_still_listed(make_run, workspace):
    good, bad = make_run(), make_run()
    (bad.path / "run.json").write_text("{")
    assert [run.id for run in all_runs(workspace)] == [good.id, bad.id]
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        bad.info()


def test_updates_merge_one_level_and_none_is_lost(run):
    run.update(progress={"step": 1, "steps": 9}, model={"parameters": 10})
    run.update(progress={"step": 2})
    assert run.info()["progress"] == {"step": 2, "steps": 9}

    def count(name: str) -> None:
        for i in range(20):
            Run(run.path).update(result={f"{name}{i}": i})

    threads = [threading.Thread(target=count, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.info()["result"]) == 60


def test_heartbeats_are_rare_on_disk(run, monkeypatch):
    run.start_process()
    clock, writes = [0.0], []
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        Run, "update", lambda self, **fields: (writes.append(fields), clock.__setitem__(0, clock[0] + 0.05))
    )
    for step in range(4000):  # forty seconds of steps, on a disk that needs 50 ms for a durable write
        clock[0] += 0.01
        run.heartbeat(progress={"step": step})
    assert 6 <= len(writes) <= 10  # a hundredth of the time: every five seconds
    assert writes[-1]["progress"]["step"] > 3000


def test_a_heartbeat_says_how_far(run):
    run.start_process()
    before = run.info()["process"]
    run.heartbeat(progress={"step": 7})
    assert run.info()["progress"]["step"] == 7
    assert run.info()["process"]["heartbeat_at"] >= before["heartbeat_at"]
    assert run.info()["process"]["pid"] == before["pid"]


def test_one_process_trains_a_run(run, workspace):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, workspace.root], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}"), run.lock():
            pass
        assert run.status == "running"
        with pytest.raises(ValueError, match="stop it before"):
            run.delete()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert run.status == "interrupted"
    with run.lock():  # the system let go of the dead process's lock
        pass
    with run.lock():
        pass


def test_deleting(make_run, workspace):
    gone, stays = make_run(), make_run()
    gone.finish("completed")
    with pytest.raises(ValueError, match="is queued"):
        stays.delete()
    gone.delete()
    assert [path.name for path in (workspace.root / "runs").iterdir()] == [stays.id]


def test_other_code_is_named_and_refused(run, monkeypatch):
    run.check_code()
    monkeypatch.setattr(runs, "code_sha", lambda: "f" * 64)
    monkeypatch.setattr(runs, "versions", lambda: {**run.info()["versions"], "torch": "99.0"})
    with pytest.raises(ValueError, match=r"modeling/ changed .*ffff.*; torch .* is now 99\.0"):
        run.check_code()
    run.check_code(force=True)
    assert "forced" in (run.path / "train.log").read_text()
    run.check_code()


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["python", "-m", "finetune.qlora", "--base", "x"], "finetune.qlora"),
        (["/home/me/lab/training/pretrain.py", "--recipe", "tales"], "training.pretrain"),
        (["accelerate", "launch", "training/pretrain.py"], "training.pretrain"),
    ],
)
def test_how_to_go_on(run, workspace, monkeypatch, command, module):
    run.update(command=command)
    words = f"python -m {module} --resume {run.id}"
    assert run.resume_command(travels=True) == words  # to another machine, which has other folders
    assert run.resume_command() == f"{words} --workspace {workspace.root}"
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(workspace.root))
    assert run.resume_command() == words


def test_the_log_is_stamped(run):
    run.log("one")
    run.log("two")
    lines = (run.path / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines)


def test_run_json_is_for_any_reader(run):
    run.finish("failed", result={"train_loss": float("nan"), "excess_interval": [0.1, float("inf")]})
    json.dumps(run.info(), allow_nan=False)
    assert run.info()["result"] == {"train_loss": None, "excess_interval": [0.1, None]}


def test_a_renamed_run_answers_to_both_names(tmp_path):
    workspace = Workspace(tmp_path)
    run = Run.create(workspace, "first", "pretrain", ["x"], "", 0, {})
    run.update(name="second")
    assert Run.open(workspace, "second").id == Run.open(workspace, "first").id == run.id
