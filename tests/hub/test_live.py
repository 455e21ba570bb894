"""Metrics read as they grow are those read whole, and small curves show what the long ones hold."""

import json
import math
import threading

import numpy as np
import pytest

from hub import live
from hub.metrics import METRICS, Metrics, read_metrics, truncate


def write(path, begin: int, end: int, loss=lambda step: 1 / step) -> None:
    metrics = Metrics(path)
    for step in range(begin, end + 1):
        metrics.add(step, train_loss=loss(step), tokens=step * 10, seconds=step / 2)
        if step % 3 == 0:
            metrics.add(step, val_loss=loss(step) + 1, **{"dead_perc/layers.0": 0.5})
    metrics.close()


def as_text(columns: dict) -> str:
    """For comparing: NaN is not equal to itself."""
    return json.dumps({name: [repr(value) for value in values] for name, values in columns.items()}, sort_keys=True)


@pytest.fixture
def long_lines() -> bytes:
    """Rows with notes behind them, of a step before too, columns that come later, and values that are not finite."""
    lines = []
    for step in range(1, 60):
        loss = math.nan if step == 20 else 1 / step
        row = {"step": step, "train_loss": None if step == 20 else loss, "grad_norm": 2.0}
        lines.append(row | ({"not_finite": {"train_loss": "nan", "per_layer": [1.0, "inf"]}} if step == 20 else {}))
        if step % 7 == 0:
            lines.append({"step": step, "val_loss": loss + 1, "name": "é"})
        if step % 13 == 0:
            lines.append({"step": step - 5, "late": step})
    lines.insert(30, {"step": 0, "train_loss": 9.0})  # before all others
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.mark.parametrize("piece", [1, 37, 1000, 10**6])
def test_read_in_pieces_is_read_whole(tmp_path, long_lines, piece):
    """Pieces end within lines and within characters."""
    for end in range(piece, len(long_lines) + piece, piece):
        with (tmp_path / METRICS).open("ab") as file:
            file.write(long_lines[end - piece : end])
        if end % 5 == 0 or end >= len(long_lines):
            assert as_text(live.read(tmp_path).columns) == as_text(read_metrics(tmp_path))
    assert live.read(tmp_path).columns["step"] == list(range(60))


def test_only_new_bytes_are_read(tmp_path):
    write(tmp_path, 1, 50)
    first = live.read(tmp_path)
    assert live.read(tmp_path) is first
    path = tmp_path / METRICS
    with path.open("r+b") as file:  # the same length, in the same file: only who reads it again can see it
        file.write(path.read_bytes()[:30].replace(b"1.0", b"7.0"))
    assert read_metrics(tmp_path)["train_loss"][0] == 7.0
    write(tmp_path, 51, 52)
    second = live.read(tmp_path)
    assert second.columns["train_loss"][0] == 1.0
    assert second.columns["step"][-1] == 52
    assert second.version != first.version
    assert first.columns["step"][-1] == 50  # what was handed out stays as it was


def test_a_resumed_run_is_read_anew(tmp_path):
    write(tmp_path, 1, 50)
    live.read(tmp_path)
    truncate(tmp_path, 20)
    assert live.read(tmp_path).columns["step"] == list(range(1, 21))
    write(tmp_path, 21, 40)
    live.read(tmp_path)
    truncate(tmp_path, 10)
    write(tmp_path, 11, 90, lambda step: 5.0)  # longer than it ever was before anybody looks
    assert live.read(tmp_path).columns == read_metrics(tmp_path)
    assert live.read(tmp_path).columns["train_loss"][10] == 5.0


def test_a_file_written_over_in_place_is_read_anew(tmp_path):
    write(tmp_path, 1, 20)
    live.read(tmp_path)
    (tmp_path / METRICS).write_text("".join(f'{{"step": {step}, "other": {step}.5}}\n' for step in range(200)))
    assert live.read(tmp_path).columns == read_metrics(tmp_path)


def test_nothing_measured_and_nothing_left(tmp_path):
    assert live.read(tmp_path).columns == {"step": []} == read_metrics(tmp_path)
    write(tmp_path, 1, 5)
    live.read(tmp_path)
    (tmp_path / METRICS).unlink()
    assert live.read(tmp_path).columns == {"step": []}


@pytest.mark.parametrize("line", ["{spoilt\n", "[1]\n", '{"train_loss": 1.0}\n', '{"step": "x"}\n'])
def test_a_spoilt_line_is_told_and_resuming_mends_it(tmp_path, line):
    write(tmp_path, 1, 5)
    live.read(tmp_path)
    with (tmp_path / METRICS).open("a") as file:
        file.write(line)
    write(tmp_path, 6, 7)
    for _ in range(2):  # asked again, it says so again, and has not taken half of it
        with pytest.raises(ValueError, match=r"metrics\.jsonl has a line that is no row of metrics"):
            live.read(tmp_path)
    truncate(tmp_path, 7)
    assert live.read(tmp_path).columns["step"] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_kept_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "ROWS", 25)
    for name in "abcde":
        (tmp_path / name).mkdir()
        write(tmp_path / name, 1, 10)
        live.read(tmp_path / name)
    kept = [path.name for path in live._tails if path.parent == tmp_path]
    assert kept == ["d", "e"]
    assert len(live.read(tmp_path / "a").columns["step"]) == 10


def test_many_readers_of_a_growing_file(tmp_path):
    write(tmp_path, 1, 10)
    done, failures = threading.Event(), []

    def watch():
        while not done.is_set():
            columns = live.read(tmp_path).columns
            if len({len(values) for values in columns.values()}) != 1 or columns["step"][0] != 1:
                failures.append(columns)

    readers = [threading.Thread(target=watch) for _ in range(4)]
    for reader in readers:
        reader.start()
    for begin in range(11, 300, 10):
        write(tmp_path, begin, begin + 9)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert live.read(tmp_path).columns == read_metrics(tmp_path)


def test_measured_leaves_gaps_out_and_lets_time_go_on(tmp_path):
    metrics = Metrics(tmp_path)
    for step, loss, seconds in ((1, 3.0, 10.0), (2, math.inf, 20.0), (3, 2.0, 5.0), (4, None, 6.0), (5, 1.0, 2.0)):
        metrics.add(step, train_loss=loss, seconds=seconds, layers=[1.0, 2.0])
    metrics.close()
    seen = live.read(tmp_path)
    assert [values.tolist() for values in seen.measured("train_loss")] == [[1, 3, 5], [3.0, 2.0, 1.0]]
    # processes of 20, 6 and 2 seconds, the second begun at step 3, the third at step 5
    assert seen.measured("train_loss", "seconds")[0].tolist() == [10.0, 25.0, 28.0]
    assert [len(values) for values in seen.measured("nothing")] == [0, 0]
    assert [len(values) for values in seen.measured("layers")] == [0, 0]


def test_smoothing_is_a_running_mean():
    x, y = np.arange(1000.0), np.random.default_rng(0).normal(size=1000)
    middles, means = live.smooth(x, y)
    assert np.allclose(means, np.convolve(y, np.ones(20) / 20, mode="valid"))
    assert np.allclose(middles[0], 10)
    assert np.allclose(np.diff(middles), 1)
    short = np.arange(30.0)
    assert live.smooth(short, short)[1] is short


@pytest.mark.parametrize("points", [4, 5, 60, 601])
@pytest.mark.parametrize("count", [6, 59, 61, 5000, 10_007])
def test_thinning_keeps_spikes_and_ends(points, count):
    x, y = np.arange(count, dtype=float), np.random.default_rng(1).normal(size=count)
    y[count // 3], y[count // 2] = 1000.0, -1000.0
    thin_x, thin_y = live.thin(x, y, points)
    assert len(thin_x) <= points or len(thin_x) == count <= points
    assert {0.0, count - 1.0} <= set(thin_x)
    assert (thin_y.max(), thin_y.min()) == (1000.0, -1000.0)
    assert np.all(np.diff(thin_x) > 0)
    assert np.array_equal(y[thin_x.astype(int)], thin_y)


def test_a_small_curve_of_a_short_run_is_its_means(tmp_path):
    write(tmp_path, 1, 100, float)
    assert live.curve(tmp_path, 10) == [5.5 + 10 * i for i in range(10)]
    assert live.curve(tmp_path, 200) == list(map(float, range(1, 101)))


def test_a_small_curve_of_a_long_run_follows_it(tmp_path):
    write(tmp_path, 1, 5000, lambda step: 10 - step / 1000)
    drawn = live.curve(tmp_path, 60)
    assert (tmp_path / "metrics.csv").stat().st_size > 60 * live.BLOCK
    assert len(drawn) == 60
    wanted = 10 - np.linspace(1, 5000, 60) / 1000
    assert np.abs(np.array(drawn) - wanted).max() < 0.2  # rows are not all of one length
    write(tmp_path, 5001, 6000, lambda step: 99.0)  # another state of the file is another curve
    assert live.curve(tmp_path, 60)[-1] == 99.0


def test_a_small_curve_of_nothing(tmp_path):
    assert live.curve(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    assert live.curve(tmp_path) == []
    (tmp_path / "metrics.csv").write_text("step,train_loss\n1,\n2,nan\n3,spoilt\n4,2.5\n")
    assert live.curve(tmp_path) == [2.5]


def test_the_newest_evaluation_is_found_at_the_end(tmp_path, monkeypatch):
    assert live.newest_val_loss(tmp_path) is None
    write(tmp_path, 1, 2)
    assert live.newest_val_loss(tmp_path) is None
    write(tmp_path, 3, 100)
    assert live.newest_val_loss(tmp_path) == 1 / 99 + 1
    monkeypatch.setattr(live, "END", 100)
    write(tmp_path, 101, 101)  # a new state of the file, whose end shows no evaluation
    assert live.newest_val_loss(tmp_path) is None
