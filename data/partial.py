"""A fetch that is not finished: a folder with what has come so far and where to go on.

Uses pyarrow and filelock; of ours `data.hub_corpora` and `data.workspace`. In `corpora/.fetch/<name>-<6 hex>` lie
`request.json`, `position.json`, shards of rows as they came, `progress.json` for whoever looks on, and `fetch.log` of a
fetch that runs by itself. A shard is there before the position that counts it, so that a kill at any moment loses only
rows that are fetched again. One fetch at a time holds the lock, which also says whether one is at work.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet
from filelock import FileLock, Timeout

from data.hub_corpora import Request
from data.workspace import LOCKS, SCHEMA, Workspace, read_json, sha256_file, sha256_json, write_atomic, write_json

ROOM = ".fetch"
STARTING_SECONDS = 60  # a process that was launched and has not spoken after so long never will


@dataclass
class Position:
    """How far one split has come. Counts are of what is in the shards."""

    rows: int = 0
    """Rows of the dataset gone through, those without text too."""
    documents: int = 0
    bytes: int = 0
    empty: int = 0
    shards: list[str] = field(default_factory=list)
    """SHA-256 of each shard's file."""
    state: dict | None = None
    """Of the stream, as `datasets` goes on from it; and the version that wrote it, for another may write another."""
    written_by: str | None = None
    complete: bool = False


@dataclass(frozen=True)
class Partial:
    """The folder of one fetch, there or not."""

    workspace: Workspace
    id: str

    @classmethod
    def of(cls, workspace: Workspace, name: str, request: Request) -> "Partial":
        return cls(workspace, f"{name}-{sha256_json([request.key, request.revision])[:6]}")

    @property
    def path(self) -> Path:
        return self.workspace.root / "corpora" / ROOM / self.id

    @property
    def log(self) -> Path:
        return self.path / "fetch.log"

    def create(self, name: str, request: Request) -> None:
        """The folder with its request, made if it is not there."""
        self.workspace.room("corpora")
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "request.json").is_file():
            what = {"schema": SCHEMA, "name": name, "request": dataclasses.asdict(request)}
            write_json(self.path / "request.json", what)

    def request(self) -> tuple[str, Request]:
        """(name of the corpus, what is fetched)."""
        record = read_json(self.path / "request.json")
        return record["name"], Request(**record["request"])

    @contextmanager
    def alone(self, waiting) -> Iterator[None]:
        """Hold the fetch; `waiting()` is called where another process has it, before waiting for that one."""
        lock = FileLock(self.workspace.room(LOCKS) / f"fetch-{self.id}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def is_running(self) -> bool:
        lock = self.workspace.root / LOCKS / f"fetch-{self.id}.lock"
        if not lock.is_file():
            return False
        try:
            with FileLock(lock, blocking=False):
                return False
        except Timeout:
            return True

    def positions(self) -> tuple[dict | None, dict[str, Position]]:
        """(what the dataset turned out to be, how far each split is); nothing yet where nothing has come."""
        if not (self.path / "position.json").is_file():
            return None, {}
        try:
            record = read_json(self.path / "position.json")
            return record["source"], {name: Position(**one) for name, one in record["splits"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}/position.json cannot be read ({error}): {self.start_anew()}") from error

    def write_positions(self, source: dict, positions: dict[str, Position]) -> None:
        splits = {name: dataclasses.asdict(one) for name, one in positions.items()}
        write_json(self.path / "position.json", {"schema": SCHEMA, "source": source, "splits": splits})

    def add_shard(self, split: str, position: Position, texts: list[str]) -> None:
        """Write the next shard and count it in `position`, which is then to be written."""
        path = self.shard(split, len(position.shards))
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, pyarrow.large_string())}), sink)
        write_atomic(path, sink.getvalue().to_pybytes())
        position.shards.append(sha256_file(path))

    def texts(self, split: str, position: Position) -> Iterator[str]:
        """The rows of a split in order. Raises ValueError that names a shard which is not what was written."""
        for number, sha256 in enumerate(position.shards):
            path = self.shard(split, number)
            if not path.is_file() or sha256_file(path) != sha256:
                raise ValueError(f"{path} is missing or damaged: {self.start_anew()}")
            yield from pyarrow.parquet.read_table(path).column(0).to_pylist()

    def shard(self, split: str, number: int) -> Path:
        return self.path / f"{split}-{number:05}.parquet"

    def start_anew(self) -> str:
        return f"remove the folder {self.path} and fetch it again from the beginning"

    def tell(self, phase: str, **facts: object) -> None:
        """Leave word for whoever looks on: what is being done, and how far it is."""
        write_json(
            self.path / "progress.json", {"phase": phase, "pid": os.getpid(), "updated_at": time.time(), **facts}
        )

    def progress(self) -> dict:
        """What was last told, with `status`: starting, running, failed or interrupted."""
        try:
            told = read_json(self.path / "progress.json")
        except (OSError, json.JSONDecodeError):
            told = {"phase": "starting", "updated_at": 0.0}
        if self.is_running():
            return {**told, "status": "running"}
        waited = time.time() - told["updated_at"]
        if told["phase"] == "starting" and waited < STARTING_SECONDS:
            return {**told, "status": "starting"}
        return {**told, "status": "failed" if told["phase"] == "failed" else "interrupted"}

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def partials(workspace: Workspace) -> list[Partial]:
    """All fetches that are not finished, by name."""
    folders = (workspace.root / "corpora" / ROOM).glob("[!.]*/request.json")
    return [Partial(workspace, path.parent.name) for path in sorted(folders)]
