"""The registry: run folders, what they say of themselves, and `python -m hub.runs`.

May import `data`. A run is its folder; `run.json` is the record that every reader shares. What it says of status is
believed only as long as the process that wrote it lives.
"""

import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data.console import cli, nearest
from data.workspace import SCHEMA, Workspace, check_name, new_folder, read_json, write_json
from hub.checkpoints import checkpoints, sweep
from hub.metrics import finite
from hub.process import code_sha, git_state, is_alive, machine, now, this_process, versions

LIVE = ("queued", "running", "paused", "stopping")  # statuses that only a living process can have
KINDS = ("pretrain", "finetune", "experiment", "import")
HEARTBEAT, SLOWEST = 1.0, 5.0  # seconds between heartbeats, and on the slowest disk
LATEST = "latest"


class UnknownRun(ValueError):  # noqa: N818 - not every absence is an error: the name may be a folder or a Hub id
    """No run is called so; the message names the nearest."""


class Run:
    """A run's folder. Two objects of one folder are the same run: nothing but the heartbeat is kept here."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.id = self.path.name
        self.name = self.id.rpartition("-")[0]
        self._next_heartbeat = 0.0
        self._progress: dict = {}  # what the next heartbeat will say

    @classmethod
    def create(
        cls,
        workspace: Workspace,
        name: str,
        kind: str,
        command: list[str],
        recipe_yaml: str,
        seed: int,
        inputs: dict,
        status: str = "queued",
        fill: Callable[[Path], object] | None = None,
    ) -> "Run":
        """A new folder with run.json and recipe.yaml, visible only when both are in it.

        Args:
            command: what was typed; with `--resume ID` it goes on.
            inputs: corpus, tokenizer, base and parent, by id and content hash; those of a run that is to prepare its
                data itself come later.
            status: `queued` until a process starts it, `running` when that is this one, now.
            fill: puts what the run begins with into the folder it is given.
        """
        check_name(name, "run name")
        if name == LATEST:
            raise ValueError(f"a run cannot be named {LATEST!r}, which stands for the newest run")
        if kind not in KINDS:
            raise ValueError(f"run kind {kind!r} is not one of {', '.join(KINDS)}")
        runs = workspace.room("runs")
        run_id = _new_id(runs, name)
        record = {
            "schema": SCHEMA, "id": run_id, "name": name, "kind": kind, "status": "queued",
            "created_at": now(), "queued_at": None, "started_at": None, "ended_at": None,
            "command": command, "seed": seed, "machine": {}, "versions": versions(), "git": git_state(),
            "inputs": inputs, "model": {}, "progress": {}, "result": {}, "process": {},
            "code_sha": code_sha(), "error": None,
        }  # fmt: skip
        with new_folder(runs / run_id) as folder:
            (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
            write_json(folder / "run.json", record)
            if fill:
                fill(folder)
        run = cls(runs / run_id)
        if status == "running":
            run.start_process()
        return run

    @classmethod
    def open(cls, workspace: Workspace, ref: str) -> "Run":
        """By id, name (its newest run), the beginning of one id alone, or `latest`."""
        runs = all_runs(workspace)
        if not runs:
            raise UnknownRun(f"no run {ref!r}: there are no runs yet in {workspace.root / 'runs'}")
        if ref == LATEST:
            return runs[0]
        exact = [run for run in runs if run.id == ref] or [run for run in runs if ref in _names(run)][:1]
        matches = exact or [run for run in runs if ref and run.id.startswith(ref)]
        if len(matches) > 1:
            raise ValueError(
                f"{ref!r} begins {len(matches)} ids: {', '.join(run.id for run in matches[:5])}; write more of one"
            )
        if not matches:
            raise UnknownRun(f"no run {ref!r} in {workspace.root / 'runs'}; {nearest_run(ref, runs)}")
        return matches[0]

    def info(self) -> dict:
        """run.json as it is; `status` below says what became of the process."""
        try:
            return read_json(self.path / "run.json")
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path / 'run.json'} cannot be read: {error}") from error

    def update(self, **fields) -> None:
        """Merge `fields` into run.json in one atomic step; a dict is merged into the dict that is there."""
        with self.editing() as record:
            for name, value in fields.items():
                old = record.get(name)
                record[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value

    @contextmanager
    def editing(self) -> Iterator[dict]:
        """run.json to change: nobody else writes it inside the block, and what stands there at its end is written."""
        with FileLock(self.path / ".run.json.lock"):  # the page and the training process may both write
            record = self.info()
            yield record
            write_json(self.path / "run.json", finite(record))  # a loss that is not a number is null to any reader

    @property
    def status(self) -> str:
        return status_of(self.info())

    def is_mine(self) -> bool:
        """Whether the process that run.json names is this one."""
        return is_mine(self.info()["process"])

    def start_process(self) -> None:
        """This process trains the run from now on, first or again."""
        first = self.info()["started_at"]
        self.update(
            status="running", process=this_process(), machine=machine(), versions=versions(),
            started_at=first or now(), ended_at=None, error=None,
        )  # fmt: skip

    def heartbeat(self, progress: dict | None = None) -> None:
        """Say that the process lives and how far it is; when it said so less than a second ago, the next one says it.

        Args:
            progress: fields of run.json's `progress` that changed; `phase` is what the process does at the moment.
        """
        self._progress.update(progress or {})
        begin = time.monotonic()
        if begin >= self._next_heartbeat:
            self.update(process={"heartbeat_at": now()}, progress=dict(self._progress))
            # A durable write gets a hundredth of the time, where a slow disk does not make that too rare to be a sign.
            end = time.monotonic()
            self._next_heartbeat = end + min(max(HEARTBEAT, 100 * (end - begin)), SLOWEST)

    def finish(self, status: str, result: dict | None = None, error: str | None = None) -> None:
        """The process is done with the run: `completed`, `failed` or `interrupted`."""
        self._progress.clear()
        self.update(status=status, ended_at=now(), result=result or {}, error=error, progress={"phase": None})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that trains the run; the system lets go of it when that process dies."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            process = self.info()["process"]
            holder = f"process {process['pid']}" if process and is_alive(process) else "another process"
            raise ValueError(f"run {self.id} is in the hands of {holder}; wait for it or stop it first") from None
        try:
            sweep(self)  # nobody else is writing, so what is half made was left by a killed process
            yield
        finally:
            lock.release()

    def check_code(self, force: bool = False) -> None:
        """Raises ValueError where the model's code or the libraries are not those the run was trained with.

        Args:
            force: go on all the same; the change is noted in the log, and run.json says what holds from now on.
        """
        began, here, libraries = self.info(), code_sha(), versions()
        changes = [
            f"{name} {began['versions'].get(name)} is now {libraries[name]}"
            for name in ("torch", "transformers")
            if began["versions"].get(name) != libraries[name]
        ]
        if began["code_sha"] != here:
            changes.insert(0, f"the code of modeling/ changed ({began['code_sha'][:12]} is now {here[:12]})")
        if not changes:
            return
        if not force:
            raise ValueError(
                f"run {self.id} would not go on as it began: {'; '.join(changes)}; resume with --force to accept it"
            )
        self.log(f"forced: {'; '.join(changes)}")
        self.update(code_sha=here, versions=libraries)

    def module(self) -> str:
        """The command that made the run, as `python -m` knows it."""
        words = self.info()["command"]
        if "-m" in words:
            return words[words.index("-m") + 1]
        # a script's path, training/pretrain.py, is its module's name spelled otherwise
        script = next((word for word in words if word.endswith(".py")), "training/pretrain.py")
        return ".".join(Path(script).with_suffix("").parts[-2:])

    def resume_command(self, travels: bool = False) -> str:
        """What to type to go on with this run, from the project's folder.

        Args:
            travels: the words go with the model to other machines, so no folder of this one is named in them.
        """
        return f"python -m {self.module()} --resume {self.id}{'' if travels else self.workspace_flag()}"

    def workspace_flag(self) -> str:
        """What a command about this run needs behind it: ` --workspace DIR`, or nothing where it would look anyway."""
        root = self.path.absolute().parents[1]
        return "" if root == Workspace().root else f" --workspace {shlex.quote(str(root))}"

    def log(self, line: str) -> None:
        with (self.path / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {line}\n")

    def newest_checkpoint_name(self) -> str | None:
        found = checkpoints(self)
        return found[-1].name if found else None

    def delete(self) -> None:
        """Remove the folder and all in it. Refuses a run whose process lives."""
        if self.status in LIVE:
            raise ValueError(f"run {self.id} is {self.status}; stop it before deleting it")
        with self.lock():
            # gone in one rename, so that no reader finds a run half deleted
            aside = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".deleted."))
            self.path.rename(aside / self.id)
        for left in self.path.parent.glob(".deleted.*"):  # this one, and what a killed deletion left
            shutil.rmtree(left, ignore_errors=True)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def is_mine(process: dict) -> bool:
    """Whether a recorded process is this one: number, start and boot."""
    here = this_process()
    return all(process.get(key) == here[key] for key in ("pid", "started", "boot_id"))


def status_of(info: dict) -> str:
    """The status in run.json, or `interrupted` where only a living process could have it and there is none.

    A queued run has no process for a moment: its making counts as a heartbeat.
    """
    process = info["process"] or {"heartbeat_at": info["created_at"]}
    return "interrupted" if info["status"] in LIVE and not is_alive(process) else info["status"]


def all_runs(workspace: Workspace) -> list[Run]:
    """Newest first. A run whose record cannot be read is listed too, last."""
    # only looked at, never made: a workspace that can be read but not written has runs too
    folders = [path.parent for path in (workspace.root / "runs").glob("*/run.json") if path.parent.name[0] != "."]
    return sorted(map(Run, folders), key=_age, reverse=True)


def nearest_run(ref: str, runs: list[Run]) -> str:
    """The hint for a reference that fits no run: the nearest id or name, or the newest ids."""
    known = {LATEST} | {run.id for run in runs} | {run.name for run in runs}
    hint = nearest(ref, known)
    return hint if hint.startswith("did you mean") else f"newest: {', '.join(run.id for run in runs[:5])}"


def _names(run: Run) -> tuple[str, ...]:
    """The name it was made under, and the one that it was given since."""
    try:
        return run.name, run.info()["name"]
    except (ValueError, KeyError):
        return (run.name,)


def _age(run: Run) -> tuple[str, str]:
    try:
        return run.info()["created_at"], run.id
    except (ValueError, KeyError):
        return "", run.id


def _new_id(runs: Path, name: str) -> str:
    while (runs / (run_id := f"{name}-{secrets.token_hex(3)}")).exists():
        pass
    return run_id


if __name__ == "__main__":
    from hub.registry import main  # the commands stand beside, in their own file

    cli(main)
