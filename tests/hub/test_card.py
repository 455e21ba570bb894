"""The card says what is known, in a form the Hub reads, and its three lines of Python work."""

import math

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from data.workspace import write_json
from hub.card import write_card
from hub.curve import save_curve
from hub.metrics import Metrics, append_sample


@pytest.fixture
def finished(run, save):
    """A run with everything a card can tell."""
    metrics = Metrics(run.path)
    for step in range(1, 401):
        metrics.add(step, train_loss=1.0 + 6.0 / step)
        if step % 100 == 0:
            metrics.add(step, val_loss=1.1 + 6.0 / step)
    metrics.close()
    append_sample(run.path, step=200, text="an early story")
    append_sample(run.path, step=400, text="Once there was a cat.\nIt slept.")
    run.start_process()
    run.update(
        progress={"step": 400, "steps": 400, "tokens": 307_200},
        model={"parameters": 958_336, "parameters_non_embedding": 827_000},
    )
    run.finish(
        "completed",
        result={
            "train_loss": 1.02, "val_loss": 1.115, "perplexity": 3.05, "bits_per_byte": 0.71234567, "floor": 1.07,
            "excess": 0.045, "excess_interval": [0.04, 0.05], "accepted": 87,
            "accepted_of": 100,
        },
    )  # fmt: skip
    return run


def state_licence(workspace, licence: str) -> None:
    corpus = workspace.room("corpora") / "tales"
    corpus.mkdir(exist_ok=True)
    write_json(corpus / "manifest.json", {"licence": licence})


@pytest.mark.parametrize(
    ("stated", "license", "name"),
    [
        ("CC-BY-4.0", "cc-by-4.0", None),
        ("not stated", "unknown", None),
        ("as their author says", "other", "as their author says"),
    ],
)
def test_the_licence_is_the_corpus_s(run, workspace, stated, license, name):
    state_licence(workspace, stated)
    data = ModelCard.load(write_card(run)).data
    assert (data.license, data.license_name) == (license, name)


def test_a_full_card(finished, workspace):
    state_licence(workspace, "Apache-2.0")
    path = write_card(finished)
    card = ModelCard.load(path)
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["license"] == "apache-2.0"
    assert {"gpt2", "llm-lab", "pretrain"} >= set(data["tags"]) - {"labgpt"}
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "loss": 1.115, "perplexity": 3.05, "bits_per_byte": 0.712346, "excess_nats_per_token": 0.045,
    }  # fmt: skip
    for words in (
        "| parameters | 958,336 |", "| tokens seen | 307,200 |", "| bits per byte | 0.7123 |", "0.04 to 0.05",
        "| 87 of 100 |",
        "Once there was a cat.\nIt slept.", "![Losses", f"--resume {finished.id}", "learning_rate: 0.001", "seed: 0",
    ):  # fmt: skip
        assert words in card.text, words
    assert "an early story" not in card.text
    assert "stopped" not in card.text
    assert str(workspace.root) not in card.text  # a card travels: no path of this machine


def test_the_curve_is_a_small_picture(finished):
    write_card(finished)
    picture = finished.path / "curve.png"
    assert picture.stat().st_size < 80_000
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 300


def test_a_run_stopped_before_anything(run):
    card = ModelCard.load(write_card(run))
    assert card.data.license == "unknown"
    assert "curve.png" not in card.text
    assert "| corpus | tales |" in card.text
    assert not (run.path / "curve.png").exists()


def test_a_run_stopped_early(run):
    metrics = Metrics(run.path)
    metrics.add(1, train_loss=math.nan)
    metrics.add(2, train_loss=4.0)
    metrics.close()
    run.update(progress={"step": 2, "steps": 500})
    run.finish("interrupted")
    text = write_card(run).read_text()
    assert "stopped at step 2 of 500" in text
    assert (run.path / "curve.png").exists()


def test_a_curve_shows_each_line_it_has(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("hub.curve.Figure.savefig", lambda figure, *_, **__: drawn.append(figure.axes[0]))
    columns = {"step": [1, 2, 3], "train_loss": [3.0, None, 1.0], "val_loss": [None, math.inf, 1.5]}
    save_curve(tmp_path / "x.png", columns, floor=0.5)
    (axes,) = drawn
    data = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert data["training"] == [[1, 3.0], [3, 1.0]]
    assert data["validation"] == [[3, 1.5]]
    assert data["the corpus's entropy (0.500)"][0][1] == 0.5
    assert "nats per token" in axes.get_ylabel()
    assert len(axes.get_legend().get_texts()) == 3


def test_a_long_curve_is_smoothed_without_shifting(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("hub.curve.Figure.savefig", lambda figure, *_, **__: drawn.append(figure.axes[0]))
    steps = list(range(1, 1001))
    save_curve(tmp_path / "x.png", {"step": steps, "train_loss": [2.0 * step for step in steps]})
    smooth = next(line for line in drawn[0].lines if line.get_label() == "training").get_xydata()
    assert len(smooth) > 900
    assert abs(smooth[:, 1] - 2 * smooth[:, 0]).max() <= 1.0001  # a straight line is its own mean, to half a step
