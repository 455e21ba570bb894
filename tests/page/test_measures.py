"""The charts of the diagnostics: which layers are drawn, in which colours, and the words below."""

from dataclasses import dataclass, field

import numpy as np

from page.measures import LINES, OWN, chart, chosen

EMPTY = (np.empty(0), np.empty(0))


@dataclass
class Thing:
    """What a measure is drawn from."""

    title: str = "Sort <b>of</b>"
    unit: str = "nats"
    about: str = "A sentence."
    healthy: str = "Below 3."
    by: str = ""
    log: bool = False
    guide: float | None = None
    source: str = ""


@dataclass
class One:
    measure: Thing
    whole: tuple = EMPTY
    noise: tuple = EMPTY
    layers: dict = field(default_factory=dict)


def line(*values: float) -> tuple:
    return np.arange(len(values)), np.array(values, dtype=float)


def test_few_layers_are_all_drawn_and_many_with_their_extremes():
    assert chosen({f"layer {i}": line(0) for i in range(LINES)}) == [f"layer {i}" for i in range(LINES)]
    many = {f"layer {i}": line(9, {13: -5, 17: 50}.get(i, 1)) for i in range(32)}
    names = chosen(many)
    assert len(names) == LINES and len(set(names)) == LINES
    assert {"layer 0", "layer 13", "layer 17", "layer 31"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name.split()[1]))


def test_layers_go_through_the_ramp_and_the_run_has_its_own_colour():
    one = One(Thing(), line(1, 2), layers={f"layer {i}": line(i, i) for i in range(3)})
    drawn = chart(one, "optimizer step")
    assert [f'lab-key line c{colour}"></i>layer {i}' in drawn for i, colour in enumerate((0, 3, 6))] == [True] * 3
    assert f'lab-key line c{OWN}"></i>the run' in drawn


def test_title_unit_guide_and_words_are_there():
    thing = Thing(guide=2.5, by="matrix", source="arXiv:1234.5678")
    drawn = chart(One(thing, line(1, 4), layers={"layer 0": line(1, 2)}), "tokens seen")
    assert "Sort &lt;b&gt;of&lt;/b&gt;" in drawn and "tokens seen" in drawn and "nats" in drawn
    assert "guide 2.5" in drawn and "lab-line level c7" in drawn
    assert "<strong>Healthy:</strong> Below 3." in drawn
    assert "Of a layer, the median of its parts." in drawn and "(arXiv:1234.5678)" in drawn


def test_noise_stands_behind_and_out_of_the_legend():
    drawn = chart(One(Thing(), line(1, 1), noise=line(0, 2, 1)), "optimizer step")
    assert "lab-line faint c7" in drawn and "</i>each step" not in drawn


def test_layers_that_are_left_out_are_told():
    assert f"{LINES} of 20 layers are drawn" in chart(One(Thing(), layers={str(i): line(i) for i in range(20)}), "step")
