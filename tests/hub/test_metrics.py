"""metrics.csv, metrics.jsonl and samples.jsonl: exact, strict, appended whole, cut on resume."""

import csv
import json
import math
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hub.metrics import COLUMNS, Metrics, append_sample, read_metrics, read_samples, truncate
from hub.process import PROJECT


def strict(line: str) -> dict:
    """json.loads takes NaN, which is no JSON: this reader does not."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def lines(folder, name: str) -> list[str]:
    return (folder / name).read_text(encoding="utf-8").splitlines()


def record(folder, steps, **values) -> None:
    metrics = Metrics(folder)
    for step in steps:
        metrics.add(step, **{"train_loss": 1.0 / step, "tokens": step * 64, **values})
    metrics.close()


def test_the_header_is_the_contract(tmp_path):
    Metrics(tmp_path, ("noise_scale",)).close()
    header = (tmp_path / "metrics.csv").read_text()
    assert header.startswith("step,tokens_sec,grad_norm,update_ratio,dead_perc,train_loss")
    assert header.endswith(",noise_scale\n")


def test_floats_come_back_exactly(tmp_path):
    values = [random.Random(0).uniform(-1, 1) * 10.0**power for power in range(-300, 300, 7)]
    metrics = Metrics(tmp_path)
    for step, value in enumerate(values, 1):
        metrics.add(step, train_loss=value, grad_norm=np.float64(value))
    metrics.close()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == values
    assert [float(row["grad_norm"]) for row in rows] == values
    assert read_metrics(tmp_path)["train_loss"] == values


def test_a_costly_column_is_blank_where_it_was_not_measured(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.add(1, train_loss=2.0)
    metrics.add(2, train_loss=1.5, val_loss=1.75)
    metrics.add(2, update_ratio=0.001)  # joins the step's row
    metrics.close()
    rows = [line.split(",") for line in lines(tmp_path, "metrics.csv")[1:]]
    assert [row[:6] for row in rows] == [["1", "", "", "", "", "2.0"], ["2", "", "", "0.001", "", "1.5"]]
    assert [row[COLUMNS.index("val_loss")] for row in rows] == ["", "1.75"]
    assert read_metrics(tmp_path)["update_ratio"] == [None, 0.001]
    assert read_metrics(tmp_path)["val_loss"] == [None, 1.75]


def test_a_note_joins_a_row_already_written(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.add(1, train_loss=2.0)
    metrics.flush()
    metrics.note(1, val_loss=2.5)
    metrics.close()
    assert len(lines(tmp_path, "metrics.csv")) == 2
    assert read_metrics(tmp_path) == {"step": [1], "train_loss": [2.0], "val_loss": [2.5]}


def test_what_is_not_a_number_stays_strict_json(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.add(1, train_loss=math.nan, grad_norm=math.inf, rms=[1.0, -math.inf], note="nan")
    metrics.add(2, train_loss=1.0)
    metrics.close()
    first, second = [strict(line) for line in lines(tmp_path, "metrics.jsonl")]
    assert first["train_loss"] is None
    assert first["rms"] == [1.0, None]
    assert first["not_finite"] == {"train_loss": "nan", "grad_norm": "inf", "rms": [1.0, "-inf"]}
    assert "not_finite" not in second
    columns = read_metrics(tmp_path)
    assert math.isnan(columns["train_loss"][0])
    assert columns["grad_norm"] == [math.inf, None]
    assert columns["rms"][0] == [1.0, -math.inf]
    assert columns["note"][0] == "nan"
    assert [row["train_loss"] for row in csv.DictReader(lines(tmp_path, "metrics.csv"))] == ["nan", "1.0"]


def test_nothing_recorded(tmp_path):
    assert read_metrics(tmp_path) == {"step": []}
    assert read_samples(tmp_path) == []
    truncate(tmp_path, 0)


def test_cutting_equals_never_having_gone_further(tmp_path):
    for folder, last in ((tmp_path / "cut", 20), (tmp_path / "short", 12)):
        folder.mkdir()
        record(folder, range(1, last + 1))
        for step in range(5, last + 1, 5):
            append_sample(folder, step=step, text=f"story {step}\nsecond line", temperature=1.0)
    truncate(tmp_path / "cut", 12)
    for name in ("metrics.csv", "metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "short" / name).read_bytes()


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl", "samples.jsonl"])
def test_a_half_written_last_line_is_dropped(tmp_path, name):
    record(tmp_path, [1, 2])
    append_sample(tmp_path, step=1, text="one")
    append_sample(tmp_path, step=2, text="zwei, bärig 🐻")
    whole = (tmp_path / name).read_bytes()
    end_of_first = whole.index(b"\n", whole.index(b"\n") + 1 if name.endswith("csv") else 0) + 1
    for end in range(end_of_first, len(whole)):  # every place where a kill may cut, within characters too
        (tmp_path / name).write_bytes(whole[:end])
        assert len(read_samples(tmp_path)) in (1, 2)  # a reader meanwhile is not disturbed
        truncate(tmp_path, 9)
        assert (tmp_path / name).read_bytes() == whole[:end_of_first]


def test_a_torn_header_is_written_again(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,tok")
    record(tmp_path, [1])
    assert lines(tmp_path, "metrics.csv")[0].split(",") == list(COLUMNS)


def test_a_resumed_run_keeps_its_columns(tmp_path):
    Metrics(tmp_path, ("noise_scale",)).close()
    record(tmp_path, [1], noise_scale=3.0)
    assert lines(tmp_path, "metrics.csv")[1].endswith(",3.0")


def test_a_line_spoilt_in_the_middle_is_named_and_dropped_on_resume(tmp_path):
    record(tmp_path, [1, 2, 3])
    text = (tmp_path / "metrics.jsonl").read_text().replace('{"step": 2', "\0\0\0\0")
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has a line that is not JSON"):
        read_metrics(tmp_path)
    truncate(tmp_path, 3)
    assert read_metrics(tmp_path)["step"] == [1, 3]


def test_what_was_flushed_survives_sigkill(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from hub.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
for step in range(1, 101):
    metrics.add(step, train_loss=1.0)
    if step % 10 == 0:
        metrics.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_metrics(tmp_path)["step"] == list(range(1, 101))


def test_a_full_disk_is_one_sentence(tmp_path):
    """The file may not grow past 4 kB in the child: its row is torn, the message clear, and resuming mends it."""
    code = """
import resource, sys
from pathlib import Path
from hub.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
metrics = Metrics(Path(sys.argv[1]))
try:
    for step in range(1, 1000):
        metrics.add(step, train_loss=1.0 / step)
        metrics.flush()
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "metrics" in done.stdout
    assert "could not be written (File too large); free space and resume" in done.stdout
    assert done.stdout.count("\n") == 1
    truncate(tmp_path, 1000)
    rows = list(csv.DictReader(lines(tmp_path, "metrics.csv")))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))


def test_recording_costs_little(tmp_path):
    """All logging together may take 2 % of a 40 ms step, 800 µs; this part takes some 11."""
    metrics = Metrics(tmp_path)
    begin = time.process_time()
    for step in range(1, 2001):
        metrics.add(
            step,
            tokens_sec=1234.5678,
            grad_norm=0.1 / step,
            train_loss=3 / step,
            learning_rate=1e-3,
            tokens=step,
            seconds=0.1,
        )
        if step % 10 == 0:
            metrics.flush()
    metrics.close()
    assert (time.process_time() - begin) / 2000 < 100e-6
