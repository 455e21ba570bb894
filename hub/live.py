"""A run's metrics as they grow: each look reads only what was written since the last, for pages that look often.

May import `data`. `hub.metrics.read_metrics` reads the same file whole and is the reference for what comes out here.
"""

import bisect
import itertools
import json
import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hub.metrics import METRICS, METRICS_CSV, restore

ROWS = 200_000  # kept in memory over all runs, some 80 MB; the run that was looked at longest ago is forgotten first
SMOOTH = 50  # a curve is smoothed over a fiftieth of it
END = 262_144  # bytes of metrics.jsonl in which the last evaluation is looked for: a thousand rows
BLOCK = 512  # bytes of metrics.csv that make one point of a small curve: a handful of rows


@dataclass(frozen=True)
class Live:
    """What a run had measured when it was looked at.

    Attributes:
        columns: as `hub.metrics.read_metrics` returns them; not to be changed.
        version: equal for two looks between which nothing was written.
    """

    columns: dict[str, list]
    version: tuple[int, int]

    def measured(self, name: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """`x` and `name` where both have a finite value."""
        across, up = self.across(x), self.numbers(name)
        known = np.isfinite(across) & np.isfinite(up)
        return across[known], up[known]

    def across(self, x: str) -> np.ndarray:
        """(N,) what a curve is drawn against, NaN where unknown; `seconds` go on counting where a run was resumed."""
        values = self.numbers(x)
        if x == "seconds":  # each process counts from 0
            there = np.isfinite(values)
            drops = np.where(np.diff(values[there]) < 0, values[there][:-1], 0.0)
            values[there] += np.concatenate([[0.0], np.cumsum(drops)])[: there.sum()]
        return values

    def numbers(self, name: str) -> np.ndarray:
        """A column with NaN for what it lacks; nothing but NaN where there is none, or it holds no numbers."""
        try:
            values = np.array(self.columns[name], dtype=float)
        except (KeyError, TypeError, ValueError):
            values = None
        steps = len(self.columns["step"])
        return values if values is not None and values.shape == (steps,) else np.full(steps, np.nan)


def read(run_path: Path) -> Live:
    """The run's metrics now. A last line still being written is left out, as it is by `read_metrics`.

    Raises ValueError where a line cannot be read.
    """
    run_path = Path(run_path)
    with _tails_lock:
        tail = _tails.setdefault(run_path, _Tail(run_path / METRICS))
        _tails.move_to_end(run_path)
    live = tail.look()
    with _tails_lock:
        while len(_tails) > 1 and sum(one.rows for one in _tails.values()) > ROWS:
            _tails.popitem(last=False)
    return live


def newest_val_loss(run_path: Path) -> float | None:
    """The validation loss of the last evaluation, from the file's end alone; None where that shows none."""
    path = Path(run_path) / METRICS
    try:
        stat = path.stat()
        return _newest_val_loss(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    except OSError:
        return None


def curve(run_path: Path, points: int = 60) -> list[float]:
    """The training loss in about `points` numbers, for a small picture; empty where nothing was measured.

    Of a long metrics.csv only `points` short stretches are read, and each gives the mean of its rows: so a list of
    hundreds of long runs is drawn at once.
    """
    path = Path(run_path) / METRICS_CSV
    try:
        stat = path.stat()
        return list(_sampled(path, points, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError:
        return []


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A running mean over a fiftieth of the curve; each mean stands at its window's middle."""
    width = max(len(y) // SMOOTH, 1)
    if width == 1:
        return x, y
    sums = np.concatenate([[0.0], np.cumsum(y)])
    means = (sums[width:] - sums[:-width]) / width
    return x[width // 2 : width // 2 + len(means)], means


def thin(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` (4 or more) of them: the first, the last, and the lowest and highest of each stretch between.

    Args:
        x, y: (N,) finite values.
    """
    if len(y) <= points:
        return x, y
    stretches = (points - 2) // 2
    width = math.ceil(len(y) / stretches)
    short = width * math.ceil(len(y) / width) - len(y)
    rows = np.concatenate([y, np.full(short, y[-1])]).reshape(-1, width)  # the last stretch is filled up
    first = np.arange(len(rows)) * width
    chosen = np.concatenate([[0, len(y) - 1], first + rows.argmin(1), first + rows.argmax(1)])
    chosen = np.unique(np.minimum(chosen, len(y) - 1))
    return x[chosen], y[chosen]


class _Tail:
    """What was read of one metrics.jsonl, and where its next line begins."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self._forget()

    @property
    def rows(self) -> int:
        return len(self.columns["step"])

    def look(self) -> Live:
        with self.lock:
            try:
                stat = self.path.stat()
            except FileNotFoundError:
                self._forget()
                return self.live
            if (stat.st_ino, stat.st_size) == (self.inode, self.looked):
                return self.live
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())  # it may have been replaced since
                if stat.st_ino != self.inode or stat.st_size < self.offset or not self._goes_on(file):
                    self._forget()  # cut back by a resumed run: another file under the same name
                self._take(file)
            self.inode, self.looked = stat.st_ino, stat.st_size
            return self.live

    def _forget(self) -> None:
        self.inode, self.looked, self.offset, self.last = None, -1, 0, b""
        self.columns: dict[str, list] = {"step": []}
        self.live = Live({"step": []}, (0, 0))

    def _goes_on(self, file) -> bool:
        """Whether the last line that was read still stands where it stood."""
        file.seek(self.offset - len(self.last))
        return file.read(len(self.last)) == self.last

    def _take(self, file) -> None:
        """Read the whole lines from `offset` on; all or none of them."""
        file.seek(self.offset)
        data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return
        try:
            parsed = [_row(line) for line in data.decode("utf-8", errors="replace").split("\n")[:-1]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{self.path} has a line that is no row of metrics ({error}); resuming its run drops such lines"
            raise ValueError(reason) from error
        for row in parsed:
            self._merge(row)
        self.offset += len(data)
        self.last = data[data.rfind(b"\n", 0, -1) + 1 :]
        version = os.fstat(file.fileno()).st_ino, self.offset
        self.live = Live({name: list(values) for name, values in self.columns.items()}, version)

    def _merge(self, row: dict) -> None:
        """Lines of one step are one row; steps ascend."""
        steps, step = self.columns["step"], row["step"]
        place = len(steps) if not steps or step > steps[-1] else bisect.bisect_left(steps, step)
        if place == len(steps) or steps[place] != step:
            for column in self.columns.values():
                column.insert(place, None)  # nearly always an append
        for name, value in row.items():
            if name not in self.columns:
                self.columns[name] = [None] * len(steps)
            self.columns[name][place] = value


def _row(line: str) -> dict:
    row = json.loads(line)
    row.update(restore(row.pop("not_finite", {})))
    if not isinstance(row["step"], int):
        raise TypeError(f"its step is {row['step']!r}")
    return row


@lru_cache(maxsize=2048)
def _sampled(path: Path, points: int, *stamp: int) -> tuple[float, ...]:
    """Means of the training loss over stretches of the file; `stamp` tells one state of the file from another."""
    with path.open("rb") as file:
        names = file.readline().decode(errors="replace").strip().split(",")
        if "train_loss" not in names:
            return ()
        column, begin, size = names.index("train_loss"), file.tell(), os.fstat(file.fileno()).st_size
        if size - begin <= points * BLOCK:
            losses = _losses(file.read().split(b"\n")[:-1], column)
            return tuple(map(_mean, _stretches(losses, points)))
        means = []
        for start in np.linspace(begin, size - BLOCK, points).astype(int).tolist():
            file.seek(start)
            # the block begins and ends within a row
            if losses := _losses(file.read(BLOCK).split(b"\n")[1:-1], column):
                means.append(_mean(losses))
        return tuple(means)


@lru_cache(maxsize=2048)
def _newest_val_loss(path: Path, *stamp: int) -> float | None:
    with path.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - END, 0))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        if b'"val_loss"' in line:
            try:
                return json.loads(line)["val_loss"]
            except (ValueError, KeyError, TypeError):  # the first line read may be half a line
                return None
    return None


def _losses(lines: list[bytes], column: int) -> list[float]:
    found = []
    for line in lines:
        try:
            value = float(line.split(b",")[column])
        except (ValueError, IndexError):  # blank, or spoilt
            continue
        if math.isfinite(value):
            found.append(value)
    return found


def _stretches(values: list[float], count: int) -> list[list[float]]:
    """The values in at most `count` parts of nearly one length."""
    if len(values) <= count:
        return [[value] for value in values]
    bounds = [len(values) * i // count for i in range(count + 1)]
    return [values[begin:end] for begin, end in itertools.pairwise(bounds)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


_tails: OrderedDict[Path, _Tail] = OrderedDict()
_tails_lock = threading.Lock()
