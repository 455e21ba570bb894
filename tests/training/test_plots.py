"""Figures of runs: what is drawn is what was recorded."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from hub.measures import MEASURES
from hub.metrics import Metrics
from hub.runs import Run
from training import plots

INPUTS = {what: {"name": what, "sha256": "0" * 64} for what in ("corpus", "tokenizer")}


@pytest.fixture
def make_run(workspace):
    def make(name: str, floor: float | None = None, layers: int = 2) -> Run:
        run = Run.create(workspace, name, "pretrain", ["train"], "train: {}\n", 0, INPUTS, status="running")
        metrics = Metrics(run.path)
        for step in range(1, 31):
            metrics.add(step, train_loss=3 + 1 / step, grad_norm=1 / step, learning_rate=0.1, tokens=step * 1000)
            if step % 10 == 0:
                metrics.add(step, val_loss=4.0, update_ratio=1e-3)
                metrics.add(step, **{f"update_ratio/layers.{i}.up_proj": 1e-3 * (i + 1) for i in range(layers)})
                metrics.add(step, **{"update_ratio/lm_head": 5e-3})
        metrics.add(20, spike=2.5)
        metrics.close()
        run.finish("completed", result={"floor": floor} if floor else {})
        return run

    return make


def loaded(run: Run, color: str = "C0") -> plots.Drawn:
    return plots.load(run, "step", color)


def test_the_command_draws_png_and_svg(make_run, workspace, capsys, tmp_path):
    run = make_run("one", floor=2.0)
    out = tmp_path / "figures"
    assert plots.main([run.id, "--workspace", str(workspace.root), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["measures"] == ["update_ratio", "grad_norm"] and said["runs"] == [run.id]
    names = [f"{name}.{kind}" for name in ("curves", "diagnostics") for kind in ("png", "svg")]
    assert sorted(path.name for path in out.iterdir()) == names
    for file in said["files"]:
        if file.endswith("png"):
            assert (out / file).read_bytes().startswith(b"\x89PNG\r\n")
        else:
            assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_without_out_the_figures_are_in_the_workspace(make_run, workspace, capsys):
    run = make_run("one")
    plots.main([run.id, "--workspace", str(workspace.root), "--x", "tokens"])
    assert (workspace.root / "figures" / f"plots-{run.id}" / "curves.svg").is_file()
    assert "1 run, 2 measures against tokens seen" in capsys.readouterr().out


def test_the_loss_has_its_floor_validation_and_spikes(make_run):
    runs = [loaded(make_run("one", floor=2.0), "C0"), loaded(make_run("two", floor=2.0), "C1")]
    axes = plots.draw_curves(runs, "step").axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    for run in runs:
        assert lines[f"{run.name}: validation"].tolist() == [[10, 4], [20, 4], [30, 4]]
        assert lines[f"{run.name}: loss spike"].tolist() == [[20, 3 + 1 / 20]]
        assert lines[f"{run.name}: training"] == pytest.approx(np.array([[s, 3 + 1 / s] for s in range(1, 31)]))
    floors = [label for label in lines if "entropy" in label]
    assert floors == ["the corpus's entropy (2.000)"]  # one line for both


def test_one_run_has_a_line_for_each_layer_and_the_guide(make_run):
    run, axes = loaded(make_run("one", layers=3)), Figure().subplots()
    plots.draw_measure(axes, [run], MEASURES["update_ratio"], "step")
    heights = [line.get_ydata()[0] for line in axes.lines if len(line.get_ydata())]
    assert heights == pytest.approx([1e-3, 2e-3, 3e-3, 5e-3, 1e-3, 1e-3])  # layers, head, the run, the guide
    assert axes.get_title(loc="left") == "Update ratio" and axes.get_yscale() == "log"
    assert axes.get_ylabel().replace("\n", " ") == MEASURES["update_ratio"].unit
    assert [key.get_label() for key in plots.keys([run])] == [run.name, "layer 0", "layer 1", "layer 2", "lm_head"]


def test_several_runs_are_told_by_colour(make_run):
    runs, axes = [loaded(make_run("one"), "C0"), loaded(make_run("two"), "C1")], Figure().subplots()
    plots.draw_measure(axes, runs, MEASURES["update_ratio"], "step")
    assert {line.get_color() for line in axes.lines} == {"C0", "C1", "black"}
    assert [key.get_label() for key in plots.keys(runs)] == [run.name for run in runs]


def test_a_run_without_measurements_is_named(workspace):
    run = Run.create(workspace, "empty", "pretrain", ["train"], "train: {}\n", 0, INPUTS)
    with pytest.raises(ValueError, match=f"run {run.id} has measured nothing yet"):
        plots.main([run.id, "--workspace", str(workspace.root)])
    with pytest.raises(ValueError, match="--x"):
        plots.main([run.id, "--x", "weeks"])
