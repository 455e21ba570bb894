"""Bars: each as long as its value and on its side of zero, buttons where they can be clicked, and text stays text."""

import re

import pytest

from page.bars import bars


def drawn(html: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'lab-share-bar( below)?" style="left:([\d.]+)%;width:([\d.]+)%"', html)
    return [(side.strip(), float(left), float(width)) for side, left, width in found]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 3, "b": -1, "c": 0}, [("", 25, 75), ("below", 0, 25), ("", 25, 0)]),
        ({"a": 3, "b": 1.5}, [("", 0, 100), ("", 0, 50)]),
        ({"a": -2}, [("below", 0, 100)]),
        ({"a": 0}, [("", 0, 0)]),
        ({}, []),
    ],
)
def test_bars_begin_at_a_common_zero(values, expected):
    assert drawn(bars(values, "nats")) == expected


def test_what_can_be_clicked_is_a_button_that_says_which():
    html = bars({"L0.mlp": 1.25, "embedding": -2}, "of the logit", "Shares", "bar", ["L0.mlp"])
    assert re.findall(r'<button[^>]*data-act="bar" data-part="([^"]*)"', html) == ["L0.mlp"]
    assert html.count("<button") == 1
    assert 'title="embedding: -2 of the logit"' in html
    assert ">+1.250<" in html


def test_names_stay_text():
    assert not re.search(r"<(script|b)>", bars({"<script>": 1}, "<b>", "<b>", "<b>", ["<script>"]))
