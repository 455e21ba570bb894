"""Checkpoints that are whole or not there: saved beside, hashed, flushed, renamed; verified before they are used.

May import `data`. A checkpoint is a model by itself with its training state in `state/`. COMPLETE, its last file, holds
the size and SHA-256 of every other, those of the model and those of the state apart: without `state/` the checkpoint is
still a complete model that cannot be resumed. What is half made or half deleted lies in hidden folders of
`checkpoints/`, which the next save or resume sweeps.
"""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data.workspace import (
    new_folder,
    read_json,
    sha256_file,
    sha256_json,
    sync_folder,
    sync_tree,
    write_atomic,
    write_json,
)
from hub.metrics import read_metrics, truncate

if TYPE_CHECKING:
    from hub.runs import Run

COMPLETE, STATE = "COMPLETE", "state"
FORMAT = 1  # of COMPLETE
STEP = re.compile(r"step-(\d{6,})")
UNNAMED = 0  # torch reports a failed write without the system's error number
# What a disk may answer to a write, and what helps. Any other error is a fault of ours and keeps its traceback.
REFUSALS = {
    errno.ENOSPC: ("the disk is full", "free {room}"),
    errno.EDQUOT: ("the disk quota is used up", "free {room}"),
    errno.EFBIG: ("a file hit the size limit of this process (ulimit -f)", "raise that limit"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EACCES: ("the run folder is not writable", "make it writable"),
    errno.EIO: ("the disk reports an input/output error", "look after the disk"),
    UNNAMED: ("the disk took no more (it is full, or a file hit ulimit -f)", "free {room}"),
}


class CheckpointError(ValueError):
    """A checkpoint could not be saved; earlier ones are as they were."""


class CorruptCheckpoint(ValueError):  # noqa: N818 - it names a state of the disk
    """A checkpoint is torn or was changed; the message names it and the file."""


def save_checkpoint(
    run: "Run", step: int, write_model: Callable[[Path], object], write_state: Callable[[Path], object]
) -> Path:
    """Save `checkpoints/step-NNNNNN`, durable before it is visible. Raises CheckpointError when the disk refuses.

    Args:
        write_model: puts weights, config and tokenizer into the folder it is given.
        write_state: puts what resuming needs into the folder it is given, `state/` of the first.
    """
    folder = run.path / "checkpoints" / step_name(step)
    sweep(run)
    try:
        with new_folder(folder) as temporary:
            write_model(temporary)
            (temporary / STATE).mkdir()
            write_state(temporary / STATE)
            write_json(temporary / COMPLETE, _record(temporary, step))
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise CheckpointError(_what_to_do(run, step, refusal)) from error
    return folder


def verify(path: Path, state: bool = True) -> dict:
    """Compare every file with COMPLETE, which is returned. Raises CorruptCheckpoint naming the first that differs.

    Args:
        state: whether `state/` is read too, where it is still there.
    """
    record = _read_record(path)
    expected = record["model"] | (record["state"] if state and (path / STATE).is_dir() else {})
    for name, file in expected.items():
        if not (path / name).is_file():
            raise CorruptCheckpoint(f"{path.name} is torn: {name} is missing")
        size = (path / name).stat().st_size
        if size != file["bytes"]:
            raise CorruptCheckpoint(f"{path.name} is torn: {name} has {size} bytes, not {file['bytes']}")
        if sha256_file(path / name) != file["sha256"]:
            raise CorruptCheckpoint(f"{path.name} was changed: {name} is not what was saved")
    return record


def checkpoints(run: "Run") -> list[Path]:
    """The run's complete checkpoints by their markers, oldest first; `verify` reads their files."""
    return [path for path in _step_folders(run) if (path / COMPLETE).is_file()]


def newest_complete(run: "Run") -> tuple[Path | None, list[str]]:
    """The newest checkpoint to resume from: every hash right, and its training state still there.

    Also returns one line for each newer one that is torn or was changed, for the caller to print.
    """
    passed_over = []
    for path in reversed(_step_folders(run)):
        try:
            verify(path)
        except CorruptCheckpoint as error:
            passed_over.append(str(error))
            continue
        if (path / STATE).is_dir():
            return path, passed_over
        passed_over.append(f"{path.name} is a whole model without training state")
    return None, passed_over


def best(run: "Run") -> Path | None:
    """The complete checkpoint of the lowest validation loss: `result.best_step` where known, else by the metrics."""
    by_step = {step_of(path): path for path in checkpoints(run)}
    recorded = (run.info().get("result") or {}).get("best_step")
    if recorded in by_step:
        return by_step[recorded]
    columns = read_metrics(run.path)
    losses = zip(columns.get("val_loss", []), columns["step"], strict=False)
    measured = [(loss, step) for loss, step in losses if step in by_step and loss is not None and loss == loss]
    return by_step[min(measured)[1]] if measured else None


def prune_states(run: "Run", keep: int = 2) -> None:
    """Remove the training state of all but the newest `keep`; their weights stay.

    A state leaves its checkpoint in one rename, so that it is never there in part.
    """
    whole = checkpoints(run)
    for path in whole[: max(len(whole) - keep, 0)]:
        if (path / STATE).is_dir():
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".pruned."))
            (path / STATE).rename(aside / STATE)
            sync_folder(path)
            shutil.rmtree(aside)


def sweep(run: "Run") -> None:
    """Remove what a killed process left half made. For the process that holds the run's lock only."""
    folder = run.path / "checkpoints"
    for hidden in folder.glob(".*/"):
        # replacing a checkpoint sets the old one aside first: killed there, the old one comes back
        for aside in hidden.glob("step-*"):
            if ".old." in hidden.name and not (folder / aside.name).exists():
                aside.rename(folder / aside.name)
        shutil.rmtree(hidden)


def rewind(run: "Run", checkpoint: Path | None) -> None:
    """What was measured and sampled after the checkpoint did not happen for a run that goes on from it.

    Args:
        checkpoint: None where the run begins again.
    """
    truncate(run.path, step_of(checkpoint) if checkpoint else 0)


def publish(run: "Run", checkpoint: Path) -> None:
    """Make the run's root the model of `checkpoint`: weights hard-linked and renamed, the small files copied.

    The root's weights are the checkpoint's own bytes, never to be written in place. Several shards cannot change in one
    step: while they do, a reader is safe with a revision.
    """
    files = [path for path in checkpoint.iterdir() if path.is_file() and path.name not in (COMPLETE, "README.md")]
    weights = sorted(path for path in files if path.suffix == ".safetensors")
    # the index of a sharded model after the shards that it names
    small = sorted((path for path in files if path not in weights), key=lambda path: path.name.endswith(".index.json"))
    aside = Path(tempfile.mkdtemp(dir=checkpoint.parent, prefix=".publish."))
    try:
        for path in weights:
            _link(path, aside / path.name)
        sync_tree(aside)
        for path in weights:
            (aside / path.name).replace(run.path / path.name)
        for path in small:
            content, target = path.read_bytes(), run.path / path.name
            if not target.exists() or target.read_bytes() != content:
                write_atomic(target, content)
    finally:
        # also takes the link that rename leaves where both names are one file already
        shutil.rmtree(aside)
    kept = {path.name for path in files}
    for stale in [*run.path.glob("*.safetensors"), *run.path.glob("*.index.json")]:
        if stale.name not in kept:
            stale.unlink()
    sync_folder(run.path)


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _step_folders(run: "Run") -> list[Path]:
    return sorted((path for path in run.path.glob("checkpoints/*") if STEP.fullmatch(path.name)), key=step_of)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _record(folder: Path, step: int) -> dict:
    files = {"model": {}, "state": {}}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        kind = "state" if name.startswith(f"{STATE}/") else "model"
        files[kind][name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    record = {"format": FORMAT, "step": step, **files}
    return {**record, "sha256": sha256_json(record)}  # of the lines above: COMPLETE vouches for itself too


def _read_record(path: Path) -> dict:
    try:
        record = read_json(path / COMPLETE)
        own = record.pop("sha256")
        sound = own == sha256_json(record)
    except FileNotFoundError:
        raise CorruptCheckpoint(f"{path.name} is torn: {COMPLETE} is missing") from None
    except (ValueError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise CorruptCheckpoint(f"{path.name} was changed: {COMPLETE} is not what was saved")
    if record["format"] != FORMAT:
        raise CorruptCheckpoint(f"{path.name} has format {record['format']}; this version reads {FORMAT}")
    if record["step"] != step_of(path):
        raise CorruptCheckpoint(f"{path.name} was renamed: it holds step {record['step']}")
    return record


def _refusal(error: Exception) -> int | None:
    """The number of the system error behind a failed write; None where something else went wrong.

    safetensors and torch write by themselves and report in their own classes, safetensors with the number in its text.
    """
    if isinstance(error, OSError):
        return error.errno if error.errno in REFUSALS else None
    if number := re.search(r"os error (\d+)", str(error)):
        return int(number[1]) if int(number[1]) in REFUSALS else None
    return UNNAMED if isinstance(error, RuntimeError) and "inline_container.cc" in str(error) else None


def _what_to_do(run: "Run", step: int, refusal: int) -> str:
    whole = checkpoints(run)
    newest = f"the newest complete one is step {step_of(whole[-1])}" if whole else "there is no earlier one"
    wanted = sum(path.stat().st_size for path in whole[-1].rglob("*") if path.is_file()) if whole else 0
    missing = wanted - shutil.disk_usage(run.path).free
    reason, remedy = REFUSALS[refusal]
    remedy = remedy.format(room=f"{-(-missing // 2**20)} MB" if missing > 0 else "some room")
    return f"{reason}: checkpoint step {step} was not saved; {newest}; {remedy} and resume with: {run.resume_command()}"
