"""Learning-rate schedules against their closed forms."""

import math

import pytest

from training.recipe import TrainRecipe
from training.schedule import rate_at


def recipe(**fields) -> TrainRecipe:
    return TrainRecipe(**{"steps": 100, "warmup_steps": 10, **fields})


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_warmup_rises_linearly_from_above_zero_to_one(schedule):
    rates = [rate_at(step, recipe(schedule=schedule)) for step in range(11)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)


def test_cosine_is_half_a_cosine():
    cosine = recipe(schedule="cosine", final_rate_fraction=0.1)
    for step in (10, 33, 55, 99, 100):
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert rate_at(step, cosine) == pytest.approx(expected)


def test_wsd_is_stable_then_falls_linearly():
    wsd = recipe(schedule="wsd", decay_fraction=0.5)
    assert rate_at(54, wsd) == pytest.approx(1.0)
    assert rate_at(77, wsd) == pytest.approx((100 - 77) / 45)
    assert rate_at(100, wsd) == pytest.approx(0.0)


def test_constant_never_falls():
    assert rate_at(99, recipe(schedule="constant")) == 1.0
