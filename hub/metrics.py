"""What a run measures, step by step: metrics.csv, metrics.jsonl and samples.jsonl, appended to and cut on resume.

May import `data`. The JSONL is the record; the CSV repeats its plain columns for spreadsheets. Both are strict: a value
that is not a number is `null` in the JSONL and kept by name under `not_finite`, so that any reader parses every line.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from data.workspace import write_atomic

METRICS_CSV, METRICS, SAMPLES = "metrics.csv", "metrics.jsonl", "samples.jsonl"
# The first six are a fixed contract with readers of the file; a costly one is blank between its cadences.
COLUMNS = (
    "step",
    "tokens_sec",
    "grad_norm",
    "update_ratio",
    "dead_perc",
    "train_loss",
    "learning_rate",
    "tokens",
    "seconds",
    "clipped",
    "data_wait",
    "mfu",
    "spike",
    "noise_scale",
    "update_ratio_sgd",
    "grad_variance",
    "weight_rms",
    "residual_rms",
    "inactive_frac",
    "attention_entropy",
    "max_attention_logit",
    "logit_max",
    "logit_z",
    "induction_score",
    "previous_token_score",
    "duplicate_token_score",
    "in_context_score",
    "eval_train_loss",
    "val_loss",
    "bits_per_byte",
    "excess",
    "excess_se",
)


class Metrics:
    """One row a step, kept in memory until `flush`; the files stay open in between.

    Args:
        run_path: the run's folder.
        columns: further columns of metrics.csv, after the usual ones. Values of other names go to metrics.jsonl alone.
    """

    def __init__(self, run_path: Path, columns: tuple[str, ...] = ()):
        self.rows: dict[int, dict] = {}
        self.notes: list[dict] = []
        csv = Path(run_path) / METRICS_CSV
        header = _header(csv)  # a resumed run keeps the columns it began with
        self.columns = header or (*COLUMNS, *columns)
        if not header:
            csv.unlink(missing_ok=True)  # a header half written is worth nothing
        self.csv, self.jsonl = _open(csv), _open(Path(run_path) / METRICS)
        if not header:
            _append(self.csv, csv, ",".join(self.columns) + "\n")
        self.paths = csv, Path(run_path) / METRICS

    def add(self, step: int, **values: float | list | dict | None) -> None:
        """Values of `step`'s row; several calls before a flush make one row."""
        self.rows.setdefault(step, {"step": step}).update(values)

    def note(self, step: int, **values: float | list | dict | None) -> None:
        """Values of a step whose row is already written: a line of their own in the JSONL, one row again when read."""
        self.notes.append({"step": step, **values})

    def flush(self) -> None:
        """Hand everything buffered to the operating system: from here on a killed process loses nothing."""
        rows = list(self.rows.values())
        if rows:
            _append(self.csv, self.paths[0], "".join(_csv_line(row, self.columns) for row in rows))
        if rows or self.notes:
            _append(self.jsonl, self.paths[1], "".join(_json_line(row) for row in [*rows, *self.notes]))
        self.rows.clear()
        self.notes.clear()

    def close(self) -> None:
        """Flush what is buffered and let go of the files."""
        if self.csv is not None:
            self.flush()
            os.close(self.csv)
            os.close(self.jsonl)
            self.csv = None


def append_sample(run_path: Path, step: int, text: str, **settings) -> None:
    """Add one sampled text, with the settings that produced it, to samples.jsonl."""
    path = Path(run_path) / SAMPLES
    file = _open(path)
    try:
        _append(file, path, _json_line({"step": step, "text": text, **settings}))
    finally:
        os.close(file)


def truncate(run_path: Path, step: int) -> None:
    """Drop what was recorded after `step`, and a line that a killed process left half written."""
    _cut(
        Path(run_path) / METRICS_CSV, step, lambda line: 0 if line.startswith("step,") else int(line.partition(",")[0])
    )
    for name in (METRICS, SAMPLES):
        _cut(Path(run_path) / name, step, lambda line: json.loads(line)["step"])


def read_metrics(run_path: Path) -> dict[str, list]:
    """The columns of metrics.jsonl, each as long as `step`, None where a step has no value; steps ascend.

    Lines of one step are one row. Values that are not finite come back as they were.
    """
    rows: dict[int, dict] = {}
    for line in read_lines(Path(run_path) / METRICS):
        line.update(restore(line.pop("not_finite", {})))
        rows.setdefault(line["step"], {}).update(line)
    ordered = [rows[step] for step in sorted(rows)]
    names = dict.fromkeys(name for row in ordered for name in row)  # a set that keeps its order
    return {name: [row.get(name) for row in ordered] for name in names or ("step",)}


def read_samples(run_path: Path) -> list[dict]:
    return read_lines(Path(run_path) / SAMPLES)


def read_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file, none when there is no file. A last line still being written is left out."""
    if not path.exists():
        return []
    *lines, _ = _text(path).split("\n")
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} has a line that is not JSON ({error}); resuming its run drops such lines") from error


def _open(path: Path) -> int:
    # The file itself, without a buffer of Python's: after a failed write nothing lingers to be written later.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _append(file: int, path: Path, text: str) -> None:
    data = memoryview(text.encode())
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as error:
        raise ValueError(f"{path} could not be written ({error.strerror}); free space and resume the run") from error


def _header(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return tuple(line[:-1].split(",")) if line.endswith("\n") else ()


def _csv_line(row: dict, columns: tuple[str, ...]) -> str:
    return ",".join(_cell(row.get(name)) for name in columns) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    # repr is the shortest text that reads back as the same float; NumPy's own would name its type
    return str(value) if isinstance(value, int) else repr(float(value))


def _json_line(row: dict) -> str:
    try:
        return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError:  # rare, so the usual row pays nothing for it
        strict = {name: finite(value) for name, value in row.items()}
        spoilt = {name: finite(value, repr) for name, value in row.items() if finite(value) != value}
        return json.dumps({**strict, "not_finite": spoilt}, ensure_ascii=False) + "\n"


def finite(value: object, name: Callable[[float], str] | None = None) -> object:
    """The value as strict JSON can hold it: every float that is not finite replaced by None, or by its name."""
    if isinstance(value, dict):
        return {key: finite(inner, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner, name) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return name(value) if name else None
    return value


def restore(value: object) -> object:
    """The inverse of `finite` with names."""
    if isinstance(value, dict):
        return {key: restore(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [restore(inner) for inner in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def _cut(path: Path, step: int, step_of: Callable[[str], int]) -> None:
    """Keep the lines up to `step`. One that cannot be read, as a power failure may leave, is dropped with the rest."""

    def keep(line: str) -> bool:
        try:
            return step_of(line) <= step
        except (ValueError, KeyError, TypeError):
            return False

    if path.exists():
        text = _text(path)
        *lines, _ = text.split("\n")  # what follows the last newline was never finished
        kept = "".join(f"{line}\n" for line in lines if keep(line))
        if kept != text:
            write_atomic(path, kept)


def _text(path: Path) -> str:
    # a last line still being written may end within a character
    return path.read_text(encoding="utf-8", errors="replace")
