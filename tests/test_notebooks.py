"""The notebooks run from top to bottom on a run, and compute what they say they do."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from data.workspace import Workspace
from hub.metrics import Metrics
from hub.runs import Run

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))
STEPS, TOKENS, SPIKE = 800, 1024, 500
LAYERS = ("model.layers.0.self_attn", "model.layers.1.self_attn")


def loss_at(step: np.ndarray | int) -> np.ndarray | float:
    """A power law of the tokens above a floor of 1."""
    return 1 + 20 / (step * TOKENS) ** 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run with known numbers: no noise but a tiny one, one spike, heads of two layers."""
    workspace = Workspace(tmp_path_factory.mktemp("notebook"))
    run = Run.create(workspace, "known", "pretrain", ["train"], "train:\n  steps: 800\n", 0, {}, status="running")
    noise = np.random.default_rng(0).normal(0, 1e-4, STEPS + 1)
    metrics = Metrics(run.path, columns=("clipped", "val_loss"))
    for step in range(1, STEPS + 1):
        loss = loss_at(step) + noise[step] + (1.0 if step == SPIKE else 0.0)
        metrics.add(
            step, train_loss=loss, tokens=step * TOKENS, tokens_sec=900.0 + step % 3, grad_norm=1.0, seconds=0.1
        )
        metrics.add(step, learning_rate=1e-3, clipped=int(step <= STEPS // 10))
        if step % 100 == 0:
            metrics.add(step, val_loss=loss + 0.1)
            for layer, name in enumerate(LAYERS):
                metrics.add(step, **{f"attention_entropy/{name}": [0.2, 0.4 + layer]})
    metrics.close()
    run.finish("completed", result={"floor": 1.0})
    return run


def execute(notebook: Path) -> tuple[dict, str]:
    """The names that a notebook's cells leave behind, run in order, and what they print."""
    names, printed = {"__name__": "notebook"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for i, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{notebook.name}, cell {i}", "exec"), names)
    return names, printed.getvalue()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_its_results(notebook):
    code = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_the_analysis_of_a_run_finds_what_is_in_it(run, monkeypatch):
    monkeypatch.setenv("LLM_LAB_RUN", str(run.path))
    matplotlib.use("Agg")
    (notebook,) = [path for path in NOTEBOOKS if path.name == "analyse_a_run.ipynb"]
    names, printed = execute(notebook)
    names["plt"].close("all")

    assert f"{run.id}: {STEPS} steps, {STEPS * TOKENS:,} tokens" in printed
    assert list(names["spikes"].index) == [SPIKE]
    # the mean over a window of 16 steps and of 8 at the end, of a curve without a spike in them
    assert names["gain"] == pytest.approx(loss_at(STEPS / 2) - loss_at(STEPS - 4), abs=2e-3)
    assert names["gain_before"] == pytest.approx(loss_at(STEPS / 4) - loss_at(STEPS / 2), abs=2e-3)
    assert names["by_tenth"]["share clipped"].tolist() == [1.0] + [0.0] * 9
    assert names["slow"].empty
    assert names["measures"] == ["attention_entropy"]
    assert names["layers"].index.tolist() == list(LAYERS)
    assert names["layers"].columns.tolist() == list(range(100, STEPS + 1, 100))
    assert np.allclose(names["layers"].to_numpy(), [[0.3] * 8, [0.8] * 8])


def test_the_newest_run_of_the_workspace_is_taken(run, monkeypatch):
    monkeypatch.delenv("LLM_LAB_RUN", raising=False)
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(run.path.parents[1]))
    matplotlib.use("Agg")
    names, _ = execute(NOTEBOOKS[0])
    names["plt"].close("all")
    assert names["run"] == run.path
