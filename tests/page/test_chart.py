"""Charts: where values land, what thinning keeps, how ticks read."""

import json
import math
import re
from html import unescape

import numpy as np
import pytest

from page.chart import SIZE, Axis, Series, bar_chart, line_chart, sparkline, thin


def coordinates(markup: str, css: str) -> np.ndarray:
    path = re.search(rf'<path class="[^"]*{css}[^"]*" d="([^"]+)"', markup)[1]
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)])


def test_a_line_spans_the_plot_and_rises():
    points = coordinates(line_chart([Series("a", [0, 5, 10], [0.0, 5.0, 10.0])], "x", "y"), "lab-line")
    assert points.tolist() == [[0, SIZE], [SIZE / 2, SIZE / 2], [SIZE, 0]]  # an SVG counts downwards


def test_a_logarithmic_axis_gives_each_factor_the_same_height():
    y = coordinates(line_chart([Series("a", [0, 1, 2], [1.0, 10.0, 100.0])], "x", "y", log_y=True), "lab-line")[:, 1]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)


def test_values_of_zero_fall_back_to_a_linear_axis():
    assert not Axis.around(np.array([0.0, 1.0]), log=True).log


def test_gaps_break_the_line():
    markup = line_chart([Series("a", range(5), [1.0, None, math.inf, 2.0, 3.0])], "x", "y")
    path = re.search(r'd="(M[^"]+)"', markup.split("lab-line")[1])[1]
    assert path.count("M") == 2 and path.count("L") == 1
    assert "nan" not in markup


def test_thinning_keeps_every_spike():
    rng = np.random.default_rng(0)
    x, y = np.arange(10_000.0), rng.normal(size=10_000)
    spikes = rng.choice(200, 20, replace=False) * 50  # no two in one stretch
    y[spikes] = 50 + np.arange(20)
    kept_x, kept_y = thin(x, y, 600)
    assert len(kept_x) <= 700
    assert set(kept_y[kept_y > 40]) == set(y[spikes])
    # of any stretch the highest is there, so the envelope is the true one
    for begin in range(0, 10_000, 500):
        inside = (kept_x >= begin) & (kept_x < begin + 500)
        assert kept_y[inside].max() == y[begin : begin + 500].max()
        assert kept_y[inside].min() == y[begin : begin + 500].min()
    assert (np.diff(kept_x) > 0).all() and kept_x[0] == 0 and kept_x[-1] == 9999


def test_the_browser_gets_the_same_numbers():
    markup = line_chart([Series("a & b", [1, 2], [0.123456, None]), Series("c", [1, 2], [3.0, 4.0])], "x", "y")
    data = json.loads(unescape(re.search(r'data-chart="([^"]+)"', markup)[1]))
    assert data["series"][0]["name"] == "a & b"
    assert data["series"][0]["points"] == [[1, 0.12346], [2, None]]


def test_axes_carry_names_units_and_round_ticks():
    markup = line_chart([Series("a", [0, 25_000], [0.0, 0.01])], "optimizer step", "learning rate")
    assert "optimizer step" in markup and "learning rate" in markup
    assert [words for _, words in Axis(0, 25_000).labels()] == ["0", "5k", "10k", "15k", "20k", "25k"]
    assert [words for _, words in Axis(0, 2000).labels()] == ["0", "500", "1,000", "1,500", "2,000"]
    assert [words for _, words in Axis(2e-6, 8e-6).labels()] == ["2e-6", "4e-6", "6e-6", "8e-6"]


def test_ticks_lie_inside_the_axis():
    for low, high, log in [(0.13, 9.7, True), (3.0, 3.2, True), (-1.0, 0.7, False), (5.0, 5.0001, False)]:
        axis = Axis(low, high, log)
        ticks = axis.ticks()
        assert len(ticks) >= 2
        assert all(-1e-6 <= axis.at(tick) <= SIZE * (1 + 1e-6) for tick in ticks)


def test_one_value_is_a_dot():
    assert "h0" in line_chart([Series("a", [3], [1.0])], "x", "y")


def test_nothing_measured_is_said():
    assert "nothing measured yet" in line_chart([Series("a", [], [])], "x", "y")
    assert "nothing to count" in bar_chart([0, 1], [0], "x", "y")
    assert "path" not in sparkline([None, 1.0])


def test_bars_stand_on_zero():
    markup = bar_chart([0, 10, 20], [5, 10], "characters", "documents")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"><title>', markup)]
    assert heights[1] == pytest.approx(2 * heights[0])
    assert "0 to 10: 5" in markup
