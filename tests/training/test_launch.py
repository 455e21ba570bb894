"""Started in a process of its own: refused at once where that can be known, complete and comparable when it is done."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.workspace import Workspace
from hub.launch import OUTPUT
from hub.queue import waiting_for
from hub.runs import Run, all_runs
from training import launch as module
from training.launch import command_words, create, start
from training.recipe import build_recipe, merge, parse_flags, read_recipe

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    *("--train.steps", "6", "--train.save_every", "3", "--train.log_every", "1", "--train.compile", "false"),
    *("--train.context", "16", "--train.batch_size", "2", "--train.threads", "1", "--train.eval_sequences", "2"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2"),
    *("--data.tokenizer", "char"),
]  # fmt: skip


def parts(*flags: str) -> dict:
    return merge(parse_flags(FLAGS), parse_flags(list(flags)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.lerning_rate", "1"], "'learning_rate'"),
        (["--train.steps", "0"], "train.steps"),
        (["--model.num_attention_heads", "3"], "num_attention_heads=3"),
        (["--model.hidden_akt", "gelu"], "'hidden_act'"),
        (["--model.max_position_embeddings", "8"], "train.context 16"),
        (["--data.corpus", "tails"], "'tales'"),
        (["--data.tokenizer", "no-such-tokenizer"], "no-such-tokenizer"),
        (["--train.device", "cuda"], "'cuda'"),
        (["--train.precision", "fp16", "--train.device", "cpu"], "fp16"),
        (["--train.batch_size", "3", "--train.accumulate", "2"], "accumulate"),
    ],
)
def test_mistakes_are_known_before_there_is_a_run(workspace, monkeypatch, flags, words):
    monkeypatch.setattr(module, "launch", lambda *_: pytest.fail("a mistake was launched"))
    with pytest.raises(ValueError, match=words):
        start(parts(*flags), workspace)
    with pytest.raises(ValueError, match="run name"):
        start(parts(), workspace, name="../up")
    assert all_runs(workspace) == []


def test_a_run_before_its_data(workspace, milk, monkeypatch):
    monkeypatch.chdir(milk.parent)
    run = create(parts("--data.corpus", milk.name, "--train.seed", "3"), workspace)
    info = run.info()
    assert (run.name, info["status"], info["inputs"], info["seed"]) == ("milk", "queued", {}, 3)
    recipe = read_recipe(run.path / "recipe.yaml")
    assert recipe["data"]["corpus"] == str(milk)  # its process will not stand here
    assert build_recipe(recipe).train.steps == 6
    words = info["command"]
    assert words[:3] == ["python", "-m", "training.pretrain"]
    assert parse_flags(words[3:]) == parts("--data.corpus", "milk.txt", "--train.seed", "3")
    assert create(parts(), workspace).name == "tales"


def test_the_command_that_does_the_same():
    words = command_words({"train": {"steps": 9}}, name="mine", fork="tales@best")
    assert " ".join(words) == "python -m training.pretrain --fork tales@best --run-name mine --train.steps 9"


@pytest.mark.slow
def test_detached_runs_train_one_after_the_other(workspace, milk):
    words = ["--detach", *FLAGS, "--data.corpus", milk.name, "--workspace", str(workspace.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "training.pretrain", *words, "--train.steps", "200"]
    done = subprocess.run(command, cwd=milk.parent, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    (first,) = all_runs(workspace)
    for word in (first.id, "control pause", "control stop", f"--workspace {workspace.root}", OUTPUT):
        assert word in done.stdout
    assert first.status in ("queued", "running")
    second = start(parts("--data.corpus", str(milk)), workspace, name="second")
    assert waiting_for(second, workspace) in (
        f"{second.id} waits for {first.id} to end; it is next in line",
        f"{second.id} waits for {first.id}, which is about to begin; it is number 2 in line",
    )
    until_completed(second)
    assert first.status == "completed" and first.info()["ended_at"] < second.info()["started_at"]
    output = (first.path / OUTPUT).read_text()
    assert "the model is in" in output and f"generate {first.id} --prompt 'One sunny day,' --workspace" in output
    assert first.info()["inputs"]["corpus"] == second.info()["inputs"]["corpus"]


def until_completed(run: Run, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while run.status != "completed":
        assert time.monotonic() < deadline and run.status not in ("failed", "interrupted"), run.info()
        time.sleep(0.1)


def test_a_workspace_that_cannot_be_written(tmp_path):
    (tmp_path / "w").write_text("not a folder")
    with pytest.raises(ValueError, match="cannot be written"):
        start(parts(), Workspace(tmp_path / "w"))
