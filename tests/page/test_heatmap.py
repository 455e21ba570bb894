"""Heat maps: every cell says its value, colours go with it, markup stays text, and too many cells are refused."""

import re

import numpy as np
import pytest

from page.heatmap import CELLS, heatmap


def cells(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<td class="(heat[^"]*)" style="--v:([\d.]+)"', html)


def test_the_colour_goes_with_the_value():
    html = heatmap(np.array([[0, 1, 4], [-2, np.nan, 2]]), ["a", "b"], ["x", "y", "z"], "nats")
    assert cells(html) == [
        ("heat", "0.000"), ("heat", "0.250"), ("heat deep", "1.000"), ("heat below", "0.500"), ("heat", "0.500"),
    ]  # fmt: skip
    assert 'title="b, x: -2 nats"' in html
    assert ">-4<" in html and ">4 nats<" in html  # the legend's two ends


def test_a_given_top_cuts_the_colour_and_not_the_words():
    html = heatmap(np.array([[3.0]]), ["a"], ["x"], "%", top=1.5, words=[["three"]], titles=[["said"]])
    assert cells(html) == [("heat deep", "1.000")]
    assert ">three<" in html and 'title="said"' in html


def test_cells_that_can_be_clicked_say_where_they_are():
    html = heatmap(np.ones((2, 3)), ["0", "1"], list("abc"), "", act="head")
    assert 'data-act="head" data-row="1" data-column="2"' in html
    assert html.count("<button") == 6


def test_what_tokens_hold_stays_text():
    html = heatmap(np.ones((1, 1)), ["<script>"], ['"><img>'], "<b>", "<i>", words=[["<u>"]], act="<a>", corner="<s>")
    assert not re.search(r"<(script|img|b|i|u|a|s)>", html)


def test_nothing_but_zeros_and_nothing_finite_are_drawn():
    assert cells(heatmap(np.zeros((1, 2)), ["a"], ["x", "y"], "")) == [("heat", "0.000")] * 2
    assert cells(heatmap(np.full((1, 1), np.inf), ["a"], ["x"], "")) == []


def test_too_many_cells_are_refused():
    side = int(CELLS**0.5) + 1
    with pytest.raises(ValueError, match="cells are more than"):
        heatmap(np.zeros((side, side)), [""] * side, [""] * side, "")
