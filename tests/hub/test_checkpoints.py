"""A checkpoint is whole or not there: kills, full disks and changed bytes lose nothing that was saved before."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import data.workspace
from hub import checkpoints as module
from hub.checkpoints import (
    CheckpointError,
    CorruptCheckpoint,
    best,
    checkpoints,
    newest_complete,
    prune_states,
    publish,
    rewind,
    save_checkpoint,
    sweep,
    verify,
)
from hub.metrics import Metrics, append_sample, read_metrics, read_samples
from hub.process import PROJECT

NAMES = ["COMPLETE", "config.json", "model.safetensors", "state/training.pt", "tokenizer.json"]


def contents(folder) -> dict:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(run) -> list[str]:
    """Everything in checkpoints/, hidden leftovers too."""
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_a_saved_checkpoint_is_complete(run, save):
    path = save(run, 500)
    assert path == run.path / "checkpoints" / "step-000500"
    assert sorted(contents(path)) == NAMES
    record = verify(path)
    assert record["step"] == 500
    assert set(record["model"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(record["state"]) == {"state/training.pt"}
    assert names(run) == ["step-000500"]
    assert newest_complete(run) == (path, [])


def test_steps_are_ordered_as_numbers(run, save):
    for step in (1_000_000, 999_999, 20):
        save(run, step)
    assert [path.name for path in checkpoints(run)] == ["step-000020", "step-999999", "step-1000000"]


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_is_found_and_named(run, save, name):
    good, path = save(run, 100), save(run, 200)
    original = (path / name).read_bytes()
    for position in range(0, len(original), max(len(original) // 60, 1)):
        changed = bytearray(original)
        changed[position] ^= 1
        (path / name).write_bytes(changed)
        with pytest.raises(CorruptCheckpoint, match="step-000200 .*" + name):
            verify(path)
    found, passed_over = newest_complete(run)
    assert found == good
    assert len(passed_over) == 1
    assert name in passed_over[0]


@pytest.mark.parametrize("name", NAMES)
def test_torn_and_missing_files_are_named(run, save, name):
    path = save(run, 100)
    original = (path / name).read_bytes()
    for end in (0, 1, len(original) // 2, len(original) - 2):
        (path / name).write_bytes(original[:end])
        with pytest.raises(CorruptCheckpoint, match=name):
            verify(path)
    (path / name).unlink()
    with pytest.raises(CorruptCheckpoint, match=f"{name} is missing"):
        verify(path)
    assert newest_complete(run)[0] is None


def test_a_renamed_checkpoint_is_found(run, save):
    path = save(run, 100)
    path.rename(path.with_name("step-000900"))
    with pytest.raises(CorruptCheckpoint, match="renamed: it holds step 100"):
        verify(path.with_name("step-000900"))


def test_pruning_keeps_models_whole(run, save):
    for step in (1, 2, 3, 4):
        save(run, step)
    prune_states(run, keep=2)
    assert [(path / "state").exists() for path in checkpoints(run)] == [False, False, True, True]
    for path in checkpoints(run):
        verify(path)
    shutil.rmtree(run.path / "checkpoints" / "step-000003")
    (run.path / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"")
    found, passed_over = newest_complete(run)
    assert found is None  # the older two are models that nothing can be resumed from
    assert len(passed_over) == 3


def test_a_kill_while_pruning_leaves_a_whole_state_or_none(run, save, monkeypatch):
    for step in (1, 2, 3):
        save(run, step)

    def killed(folder):
        next(path for path in folder.rglob("*") if path.is_file()).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune_states(run, keep=1)
    monkeypatch.undo()
    for path in checkpoints(run):
        verify(path)
    sweep(run)
    assert names(run) == ["step-000001", "step-000002", "step-000003"]


KILLED = """
import os, signal, sys
from pathlib import Path
import data.workspace as workspace
from hub.checkpoints import save_checkpoint
from hub.runs import Run

run, step, function, line = Run(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def watch(frame, event, argument):  # die before the given line of the given function
    global line
    if event == "line" and frame.f_code.co_name == function:
        line -= 1
        if line == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return watch

def model(folder):
    (folder / "model.safetensors").write_bytes(b"new weights" * 50)

def state(folder):
    (folder / "training.pt").write_bytes(b"new state" * 50)

sys.settrace(watch)
save_checkpoint(run, step, model, state)
sys.settrace(None)
print("saved")
"""


@pytest.mark.parametrize("step", [300, 200])  # a new one, and one that replaces a checkpoint of the same step
@pytest.mark.parametrize(
    ("function", "line"),
    # while filling, hashing and flushing, and before each line that sets aside, renames or removes
    [("state", 1), ("_record", 4), ("sync_tree", 8), *(("new_folder", line) for line in range(6, 12))],
)
def test_a_kill_at_any_moment_of_saving(run, save, step, function, line):
    save(run, 100)
    before = save(run, 200)
    old = contents(before)
    words = [sys.executable, "-c", KILLED, run.path, str(step), function, str(line)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    # the branch of a new step is shorter
    assert done.returncode == -signal.SIGKILL or (step == 300 and line > 8 and "saved" in done.stdout)
    with run.lock():  # as a resumed run takes it
        pass
    found, passed_over = newest_complete(run)
    assert passed_over == []
    assert not [name for name in names(run) if name.startswith(".")]
    if step == 200:
        assert found == before
        assert contents(found) == old or (found / "model.safetensors").read_bytes() == b"new weights" * 50
    else:
        assert contents(before) == old
        assert found.name in ("step-000200", "step-000300")


def test_a_replaced_checkpoint_comes_back_when_the_kill_fell_between(run, save):
    path = save(run, 200)
    old = contents(path)
    aside = path.parent / ".step-000200.old.abc"
    aside.mkdir()
    path.rename(aside / path.name)
    (path.parent / ".step-000200.xyz").mkdir()
    sweep(run)
    assert names(run) == ["step-000200"]
    assert contents(path) == old


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EFBIG, "ulimit -f"),
    ],
)
@pytest.mark.parametrize("where", ["model", "state", "fsync"])
def test_a_full_disk_loses_nothing(run, save, monkeypatch, number, says, where):
    before = contents(save(run, 400))

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    def write(kind):
        return refuse if where == kind else lambda folder: (folder / "file").write_bytes(b"1")

    if where == "fsync":
        monkeypatch.setattr(data.workspace.os, "fsync", refuse)
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(run, 500, write("model"), write("state"))
    monkeypatch.undo()
    message = str(caught.value)
    assert says in message
    assert "checkpoint step 500 was not saved; the newest complete one is step 400;" in message
    assert message.endswith(f"resume with: {run.resume_command()}") and f"--resume {run.id}" in message
    assert "\n" not in message
    assert names(run) == ["step-000400"]
    assert contents(run.path / "checkpoints" / "step-000400") == before


def test_how_much_to_free(run, save, monkeypatch):
    save(run, 400)
    usage = shutil.disk_usage(run.path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(CheckpointError, match="free 1 MB and resume"):
        save_checkpoint(run, 500, lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")), lambda _: None)


def test_a_file_size_limit_in_a_child(run, save):
    """RLIMIT_FSIZE for real, with the three writers a checkpoint has; Python ignores SIGXFSZ, so a write fails."""
    before = contents(save(run, 400))
    code = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from hub.checkpoints import CheckpointError, save_checkpoint
from hub.runs import Run

big = torch.zeros(100_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for write in (
    lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 400_000),
    lambda folder: save_file({"w": big}, folder / "model.safetensors"),
    lambda folder: torch.save(big, folder / "model.pt"),
):
    try:
        save_checkpoint(Run(Path(sys.argv[1])), 500, write, lambda folder: None)
    except CheckpointError as error:
        print(error)
"""
    words = [sys.executable, "-c", code, run.path]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == 3
    assert all("ulimit -f" in line and "the newest complete one is step 400" in line for line in messages)
    assert names(run) == ["step-000400"]
    assert contents(run.path / "checkpoints" / "step-000400") == before


def test_other_errors_keep_their_name(run, save):
    save(run, 400)
    with pytest.raises(FileNotFoundError):
        save_checkpoint(run, 500, lambda folder: (folder / "missing").read_text(), lambda _: None)
    assert names(run) == ["step-000400"]


def test_publish_makes_the_root_the_newest_model(run, save):
    first, second = save(run, 100), save(run, 200)
    (run.path / "README.md").write_text("the card")
    publish(run, first)
    config = (run.path / "config.json").stat()
    publish(run, second)
    publish(run, second)  # the root's weights are the checkpoint's file already
    assert (run.path / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (run.path / "model.safetensors").samefile(second / "model.safetensors")
    assert (run.path / "config.json").stat().st_ino == config.st_ino  # what did not change was not written
    assert not (run.path / "config.json").samefile(second / "config.json")
    assert (run.path / "README.md").read_text() == "the card"
    assert not (run.path / "COMPLETE").exists()
    assert names(run) == ["step-000100", "step-000200"]
    verify(first)


def test_publish_without_hard_links(run, save, monkeypatch):
    path = save(run, 100)
    monkeypatch.setattr(module.Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    publish(run, path)
    assert (run.path / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()
    assert not (run.path / "model.safetensors").samefile(path / "model.safetensors")


def test_publish_shards_and_back(run):
    def shards(folder):
        for i in (1, 2):
            save_file({f"w{i}": torch.full((2,), float(i))}, folder / f"model-0000{i}-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text("{}")

    def single(folder):
        save_file({"w": torch.zeros(1)}, folder / "model.safetensors")

    def weights():
        return sorted(path.name for path in run.path.glob("model*"))

    publish(run, save_checkpoint(run, 1, single, lambda _: None))
    assert weights() == ["model.safetensors"]
    publish(run, save_checkpoint(run, 2, shards, lambda _: None))
    # a single file left beside the shards would be loaded instead of them
    assert weights() == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip
    publish(run, save_checkpoint(run, 3, single, lambda _: None))
    assert weights() == ["model.safetensors"]


def test_best_is_the_lowest_validation_loss(run, save):
    assert best(run) is None
    paths = {step: save(run, step) for step in (10, 20, 30)}
    assert best(run) is None  # nothing measured
    metrics = Metrics(run.path)
    for step, loss in ((5, 0.1), (10, 1.5), (20, 1.2), (30, float("nan"))):
        metrics.add(step, train_loss=1.0)
        metrics.note(step, val_loss=loss)
    metrics.close()
    assert best(run) == paths[20]  # step 5 measured lower, but was not saved
    run.finish("completed", result={"best_step": 10})
    assert best(run) == paths[10]
    run.finish("completed", result={"best_step": 5})
    assert best(run) == paths[20]


def test_rewind_forgets_what_came_after(run, save):
    path = save(run, 20)
    metrics = Metrics(run.path)
    for step in range(1, 31):
        metrics.add(step, train_loss=1.0)
    metrics.close()
    for step in (10, 20, 30):
        append_sample(run.path, step=step, text="once")
    rewind(run, path)
    assert read_metrics(run.path)["step"][-1] == 20
    assert [sample["step"] for sample in read_samples(run.path)] == [10, 20]
    rewind(run, None)
    assert read_metrics(run.path) == {"step": []}
    assert read_samples(run.path) == []
