"""A run's measures by layer, against naive loops over the rows that were written."""

import math
import statistics

import numpy as np
import pytest

from data.access import Access
from hub import live, tab_measures
from hub.measured import averaged, layer_of, recorded
from hub.measures import CATALOGUE, MEASURES
from hub.metrics import Metrics
from page.measures import NOTHING
from training import tab_measures as training_tab

MATRICES = {"q_proj": 1.0, "up_proj": 10.0, "norm": 100.0}  # medians differ from means


def value_of(step: int, layer: int, scale: float = 1.0) -> float:
    return scale * (step + layer / 10)


@pytest.fixture
def run(make_run):
    """Forty steps of two layers; looked inside at every tenth, and once at another step for one layer alone."""
    run = make_run(status="running")
    metrics = Metrics(run.path, columns=("clipped",))
    for step in range(1, 41):
        metrics.add(step, train_loss=1.0, grad_norm=float(step), clipped=step % 2, tokens=8 * step, seconds=step / 4)
        if step % 10 == 0:
            metrics.add(step, update_ratio=1e-3)
            for layer in (1, 0):
                at = f"model.layers.{layer}"
                metrics.add(step, **{f"max_attention_logit/{at}.self_attn": [1.0, value_of(step, layer), math.nan]})
                metrics.add(step, **{f"attention_entropy/{at}.self_attn": [0.25, 0.75 + layer]})
                for name, scale in MATRICES.items():
                    metrics.add(step, **{f"update_ratio/{at}.{name}": value_of(step, layer, scale)})
            metrics.add(step, **{"update_ratio/model.embed_tokens": 7.0, "nonsense/layers.0": 1.0})
    metrics.add(35, **{"max_attention_logit/model.layers.1.self_attn": [4.0]})
    metrics.close()
    return run


def named(run, x: str = "step") -> dict:
    return {one.measure.name: one for one in recorded(live.read(run.path), x)}


def test_the_catalogue_is_whole():
    assert len(MEASURES) == len(CATALOGUE)
    for measure in CATALOGUE:
        assert measure.title and measure.unit and measure.about.endswith(".")
        assert measure.by in ("", "layer", "matrix") and measure.heads in ("mean", "max")


def test_what_was_recorded_is_found_in_the_catalogues_order(run):
    found = [one.measure.name for one in recorded(live.read(run.path))]
    assert found == ["update_ratio", "grad_norm", "clipped", "attention_entropy", "max_attention_logit"]


def test_matrices_are_told_by_their_layer_as_the_median(run):
    one = named(run)["update_ratio"]
    assert list(one.layers) == ["layer 0", "layer 1", "embed_tokens"]
    for layer in (0, 1):
        x, y = one.layers[f"layer {layer}"]
        naive = [statistics.median(value_of(step, layer, scale) for scale in MATRICES.values()) for step in x]
        assert x.tolist() == [10, 20, 30, 40] and y.tolist() == pytest.approx(naive)
    assert one.whole[1].tolist() == [1e-3] * 4
    assert one.layers["embed_tokens"][1].tolist() == [7.0] * 4


def test_heads_are_one_number_for_each_layer(run):
    found = named(run)
    assert found["attention_entropy"].layers["layer 1"][1].tolist() == [1.0] * 4  # the mean of 0.25 and 1.75
    x, y = found["max_attention_logit"].layers["layer 0"]
    assert (x.tolist(), y.tolist()) == ([10, 20, 30, 40], [10.0, 20.0, 30.0, 40.0])  # the largest, NaN left out
    x, y = found["max_attention_logit"].layers["layer 1"]
    assert (x.tolist(), y.tolist()) == ([10, 20, 30, 35, 40], [10.1, 20.1, 30.1, 4.0, 40.1])
    assert not len(found["max_attention_logit"].whole[0])


def test_layers_stand_at_their_tokens_and_seconds(run):
    assert named(run, "tokens")["update_ratio"].layers["layer 0"][0].tolist() == [80, 160, 240, 320]
    assert named(run, "seconds")["update_ratio"].layers["layer 1"][0].tolist() == [2.5, 5.0, 7.5, 10.0]


def test_an_average_is_of_the_last_values():
    y = np.random.default_rng(0).normal(size=30)
    _, found = averaged(np.arange(30), y, 7)
    assert found == pytest.approx([np.mean(y[max(0, i - 6) : i + 1]) for i in range(30)])


def test_what_is_recorded_at_every_step_is_smoothed_before_its_noise(make_run):
    run = make_run(status="running")
    metrics = Metrics(run.path)
    for step in range(1, 1001):
        metrics.add(step, grad_norm=1.0 + (step % 2))
    metrics.close()
    (one,) = recorded(live.read(run.path))
    assert len(one.noise[0]) == 1000 and set(one.noise[1]) == {1.0, 2.0}
    assert one.whole[1] == pytest.approx(np.full(981, 1.5))  # windows of 20
    (thin,) = recorded(live.read(run.path), points=40)
    assert len(thin.whole[0]) <= 40 and len(thin.noise[0]) <= 120


def test_layers_are_sorted_by_number():
    parts = ["lm_head.weight", "transformer.h.10.attn", "model.layers.2.mlp", "h.0"]
    assert sorted(layer_of(part) for part in parts) == [
        (0, "layer 0"), (2, "layer 2"), (10, "layer 10"), (1 << 30, "lm_head"),
    ]  # fmt: skip


def is_skip(value) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update" and "value" not in value


@pytest.mark.parametrize(
    "look",
    [
        lambda access, ref, seen: tab_measures.measured(access, ref, "step", seen),
        lambda access, ref, seen: training_tab.measured(access, ref, seen),
    ],
    ids=["models", "train"],
)
def test_a_section_is_drawn_when_it_opens_and_when_there_is_more(look, run, workspace):
    access = Access(workspace)
    assert all(map(is_skip, look(access, run.id, None)))  # closed
    charts, seen = look(access, run.id, ())
    assert charts.count("<figure") == 5 and "Largest attention logit" in charts and "guide 0.05" in charts
    assert all(map(is_skip, look(access, run.id, seen)))
    metrics = Metrics(run.path)
    metrics.add(41, grad_norm=1.0, logit_z=2.0)
    metrics.close()
    charts, newer = look(access, run.id, seen)
    assert charts.count("<figure") == 6 and newer != seen
    said, _ = look(access, "no-such-run", ())
    assert "no-such-run" in said and "lab-error" in said


def test_a_run_that_measured_nothing_says_when_it_will(make_run, workspace):
    charts, _ = tab_measures.measured(Access(workspace), make_run().id, "tokens", ())
    assert NOTHING in charts
