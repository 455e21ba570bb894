"""The rule that names a loss curve, on curves whose name nobody would dispute, and at the edges of its thresholds."""

import json

import numpy as np
import pytest

from finetune.experiment_verdict import HEALTHY, OVER_FITTED, TOO_HIGH, TOO_LOW, Curve, verdict
from hub.metrics import Metrics, read_metrics

STEPS = 60


def curve(train, validation=None, scored=None) -> Curve:
    """From training losses of every step, and of both splits at the ends of as many equal parts."""
    train = list(train)
    columns: dict = {"step": list(range(1, len(train) + 1)), "train_loss": train}
    for name, values in (("val_loss", validation), ("eval_train_loss", scored)):
        columns[name] = [None] * len(train)
        for i, value in enumerate(values or ()):
            columns[name][len(train) * (i + 1) // len(values) - 1] = value
    return Curve.of(columns)


def falling(start: float = 3.0, end: float = 1.0, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    clean = end + (start - end) * np.exp(-6 * np.arange(STEPS) / STEPS)
    return clean * (1 + noise * np.random.default_rng(seed).standard_normal(STEPS))


VALIDATION = [2.2, 1.6, 1.3, 1.15, 1.1, 1.1]
SCORED = [2.1, 1.5, 1.2, 1.05, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_that_falls_and_flattens_is_healthy_whatever_its_batches(seed):
    assert verdict(curve(falling(noise=0.10, seed=seed), VALIDATION, SCORED)).name == HEALTHY


def test_a_validation_loss_that_turns_while_training_goes_on_is_over_fitting():
    found = verdict(curve(falling(end=0.1), [2.0, 1.5, 1.6, 1.7, 1.8, 1.9], [2.0, 1.2, 0.8, 0.5, 0.3, 0.1]))
    assert found.name == OVER_FITTED
    assert "from 1.500 at step 20 to 1.900" in found.reason and "from 1.200 to 0.100" in found.reason


def test_both_losses_rising_is_no_over_fitting():
    rising = [2.0, 1.5, 1.7, 2.0, 2.3, 2.6]
    found = verdict(curve(falling(), rising, rising))
    assert found.name == TOO_HIGH and "from 1.500 to 2.600 at step 60" in found.reason


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(bad):
    found = verdict(curve([3.0, 2.5, bad, bad]))
    assert found == (TOO_HIGH, "the training loss is not a number at step 3")


def test_a_loss_that_ends_above_its_start():
    found = verdict(curve([3.0] * 4 + [8.0] * 56))
    assert found.name == TOO_HIGH and "ends at 8.000, above the 3.000" in found.reason


def test_a_loss_that_is_thrown_up_at_once_and_comes_down_a_little():
    thrown = [0.9, 2.3, 7.3, 12.5, *np.linspace(9.0, 5.7, 56)]
    found = verdict(curve(thrown, [9.4, 7.8, 6.7, 6.2, 5.9, 5.8], [9.5, 8.0, 6.8, 6.2, 5.9, 5.8]))
    assert found.name == TOO_HIGH and "above the 0.900" in found.reason


def test_a_peak_that_comes_down_again_did_not_settle_either():
    assert verdict(curve(falling(), [2.0, 1.6, 3.5, 2.0, 1.4, 1.2], [2.0, 1.5, 3.4, 2.0, 1.3, 1.1])).name == TOO_HIGH


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_that_stays_where_it_was_is_too_low_whatever_its_batches(seed):
    flat = 3.0 * (1 + 0.06 * np.random.default_rng(seed).standard_normal(STEPS))
    found = verdict(curve(flat, [3.02, 3.01, 3.0, 3.0, 2.99, 2.99], [3.0, 2.99, 2.98, 2.97, 2.97, 2.97]))
    assert found.name == TOO_LOW and "(1.0% less)" in found.reason


def test_a_curve_that_had_fallen_before_the_first_evaluation_is_healthy():
    quick = [3.0, 3.0, 2.9, 2.8] + [1.0] * 56
    assert verdict(curve(quick, [1.02] * 6, [1.0] * 6)).name == HEALTHY


@pytest.mark.parametrize(("end", "name"), [(1.0 * 1.029, HEALTHY), (1.0 * 1.031, OVER_FITTED)])
def test_what_has_turned_and_what_has_not(end, name):
    assert verdict(curve(falling(), [2.0, 1.5, 1.0, 1.01, 1.02, end], SCORED)).name == name


@pytest.mark.parametrize(("last", "name"), [(0.951, TOO_LOW), (0.949, HEALTHY)])
def test_what_has_moved_and_what_has_not(last, name):
    assert verdict(curve([1.0] * 60, [1.0] * 6, [1.0, 0.99, 0.98, 0.97, 0.96, last])).name == name


def test_training_losses_alone_are_enough():
    assert verdict(curve(falling())).name == HEALTHY
    assert verdict(curve(np.linspace(3.0, 2.95, STEPS))).name == TOO_LOW
    assert verdict(curve([*falling()[:40], *np.linspace(1.1, 2.0, 20)])).name == TOO_HIGH


def test_a_curve_too_short_to_be_called_anything():
    with pytest.raises(ValueError, match="5 steps cannot be judged: 6 steps at least"):
        verdict(curve([3.0, 2.9, 2.8, 2.7, 2.6]))


def test_a_curve_is_read_from_a_runs_own_file(tmp_path):
    metrics = Metrics(tmp_path)
    for step in range(1, 13):
        metrics.add(step, train_loss=3.0 - 0.1 * step if step < 12 else float("nan"), learning_rate=1e-3)
        if step % 4 == 0:
            metrics.note(step, val_loss=3.0 - 0.1 * step, eval_train_loss=2.9 - 0.1 * step)
    metrics.close()
    found = Curve.of(read_metrics(tmp_path))
    assert found.steps.tolist() == list(range(1, 13)) and found.evaluated.tolist() == [4, 8, 12]
    assert found.start == pytest.approx(2.9) and np.isnan(found.train[-1])
    assert found.course[1] == pytest.approx([2.5, 2.1, 1.7])
    assert verdict(found).reason.endswith("step 12")
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert written["training"]["train_loss"][-1] is None and written["evaluation"]["step"] == [4, 8, 12]
