"""Mirrors show what the run's folder records, and never stop a training."""

import json
import math
import sys
import types
from pathlib import Path

import pytest
from accelerate import Accelerator

from hub.runs import Run
from training import trackers
from training.recipe import build_recipe
from training.trackers import Mirror, check_trackers, open_mirror

RECIPE = [
    *("--train.steps", "6", "--train.save_every", "3", "--train.log_every", "2", "--train.compile", "false"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.threads", "1", "--train.eval_sequences", "4"),
    *("--train.diagnose_every", "3", "--data.tokenizer", "char", "--model.hidden_size", "16"),
    *("--model.num_hidden_layers", "1", "--model.num_attention_heads", "2"),
]  # fmt: skip


class Fake:
    """Keeps what it is told; breaks at the call that it is to break at."""

    def __init__(self, breaks: str = ""):
        self.breaks, self.seen, self.ended = breaks, [], 0

    def log(self, values: dict, step: int) -> None:
        if self.breaks == "log":
            raise ConnectionError("the service\nis gone")
        self.seen.append((step, values))

    def finish(self) -> None:
        self.ended += 1
        if self.breaks == "finish":
            raise RuntimeError("cannot finish")


def test_a_mirror_passes_plain_numbers_on():
    fake, said = Fake(), []
    mirror = Mirror({"fake": fake}, said.append)
    mirror.log(3, {"train_loss": 2.5, "clipped": 1, "heads": [1.0, 2.0], "val_loss": None, "grad_norm": math.nan})
    mirror.close()
    mirror.close()
    assert (fake.seen, fake.ended, said) == ([(3, {"train_loss": 2.5, "clipped": 1})], 1, [])


def test_a_tracker_that_fails_is_named_once_and_dropped():
    sound, broken, late, said = Fake(), Fake("log"), Fake("finish"), []
    mirror = Mirror({"broken": broken, "sound": sound, "late": late}, said.append)
    for step in (1, 2):
        mirror.log(step, {"train_loss": 1.0})
    mirror.close()
    assert [step for step, _ in sound.seen] == [1, 2] and broken.ended == 0
    assert said == [
        "tracker broken failed and is left out from now on: the service is gone",
        "tracker late failed and is left out from now on: cannot finish",
    ]


def test_one_that_cannot_start_is_left_out(workspace, monkeypatch, capsys):
    run = Run.create(workspace, "tales", "pretrain", ["python", "-m", "training.pretrain"], "", 0, {})

    def start(name, *_):
        if name == "wandb":
            raise RuntimeError("no API key")
        return Fake()

    monkeypatch.setattr(trackers, "start", start)
    mirror = open_mirror(run, ("wandb", "tensorboard"), 0)
    assert list(mirror.trackers) == ["tensorboard"]
    assert "tracker wandb failed and is left out from now on: no API key" in (run.path / "train.log").read_text()
    assert capsys.readouterr().err.count("wandb") == 1


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_service_gets_the_runs_id_and_recipe(workspace, monkeypatch, name):
    """By a package of that name that keeps what it is told; what it writes belongs into the workspace."""
    told = {}
    Accelerator(cpu=True)  # as there is one in a training: Accelerate's trackers log through it
    package = types.ModuleType(name)
    package.config = types.SimpleNamespace(update=lambda values, **_: told.update(config=values))
    package.init = lambda **how: told.update(init=how) or Fake()
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    run = Run.create(workspace, "tales", "pretrain", ["python"], "train: {seed: 3, epochs: null}\n", 3, {})
    mirror = open_mirror(run, [name], 0)
    assert list(mirror.trackers) == [name]
    assert told["init"]["project"] == "llm-lab" and told["init"]["name"] == run.id
    assert told["config"] == {"train.seed": 3, "train.epochs": "None"}
    folder = str(workspace.root / "trackers" / name)
    assert told["init"].get("dir", trackers.os.environ.get("TRACKIO_DIR")) == folder


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"names wandb, which is not installed: pip install -e '\.\[trackers\]'"):
        check_trackers(["wandb"])


def test_the_recipe_takes_a_list_or_words():
    for given in (["tensorboard", "wandb"], "tensorboard, wandb", "[tensorboard,wandb]"):
        assert build_recipe({"train": {"trackers": given}}).train.trackers == ("tensorboard", "wandb")
    assert build_recipe({}).train.trackers == build_recipe({"train": {"trackers": "[]"}}).train.trackers == ()
    with pytest.raises(ValueError, match=r"train\.trackers"):
        build_recipe({"train": {"trackers": "tensorbord"}})


def test_tensorboard_shows_the_runs_metrics(pretrain, milk, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = [*RECIPE, "--data.corpus", str(milk), "--train.trackers", "tensorboard"]
    code, output = pretrain(tmp_path, *flags, kill=["step", 5])
    assert code == -9, output
    code, output = pretrain(tmp_path, "--resume", "latest")
    assert code == 0, output
    (record,) = tmp_path.glob("runs/*/run.json")
    run: Path = record.parent
    events = accumulator.EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / run.name))
    events.Reload()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "grad_norm", "update_ratio"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(row["step"], pytest.approx(row[name])) for row in rows if row.get(name) is not None], name
