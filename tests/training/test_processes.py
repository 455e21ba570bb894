"""Several processes train what one would: the same curve, checkpoints that any number goes on from, one record."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hub.models import open_model
from hub.runs import Run
from training.control import request

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
RECIPE = [
    *("--train.steps", str(STEPS), "--train.save_every", "6", "--train.log_every", "2", "--train.compile", "false"),
    *("--train.context", "32", "--train.batch_size", "8", "--train.threads", "1", "--train.eval_sequences", "4"),
    *("--train.eval_every", "6", "--train.sample_every", "6", "--train.diagnose_every", "6", "--train.device", "cpu"),
    *("--train.learning_rate", "1e-3", "--train.optimizer", "adamw", "--data.tokenizer", "char"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


def only_run(workspace: Path) -> Run:
    (record,) = workspace.glob("runs/[!.]*/run.json")
    return Run(record.parent)


def curve(run: Run, name: str = "train_loss") -> torch.Tensor:
    """A measure at every step, each recorded once."""
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train_loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return torch.tensor([row[name] for row in rows])


def weights(run: Run) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in sorted(load_file(run.path / "model.safetensors").items())])


def assert_same_training(one: Run, other: Run) -> None:
    for name in ("train_loss", "grad_norm"):
        torch.testing.assert_close(curve(one, name), curve(other, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def together(pretrain):
    """Two processes that are one training, as a launcher starts them; gives both exit codes and outputs."""

    def run(workspace: Path, *flags: str, **order) -> list[tuple[int, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environments = [{**group, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
        pids = [pretrain.begin(workspace, *flags, environment=each, **order) for each in environments]
        return [pretrain.wait(pid) for pid in pids]

    return run


@pytest.fixture(scope="module")
def alone(pretrain, milk, tmp_path_factory) -> Run:
    """The training by one process."""
    workspace = tmp_path_factory.mktemp("alone")
    code, output = pretrain(workspace, *RECIPE, "--data.corpus", str(milk))
    assert code == 0, output
    return only_run(workspace)


@pytest.fixture(scope="module")
def both(together, milk, tmp_path_factory) -> tuple[Run, list[str]]:
    """The same by two, and what each printed."""
    workspace = tmp_path_factory.mktemp("both")
    (code, first), (other, second) = together(workspace, *RECIPE, "--data.corpus", str(milk))
    assert code == other == 0, first + second
    return only_run(workspace), [first, second]


def test_two_processes_train_what_one_does(alone, both):
    assert_same_training(alone, both[0])


def test_only_the_main_process_speaks(alone, both):
    run, (first, second) = both
    assert run.id in first and "the model is in" in first
    assert "the model is in" not in second and "step/s" not in second
    for name in ("train.log", "samples.jsonl", "metrics.csv"):
        lines = [len((each.path / name).read_text().splitlines()) for each in (alone, run)]
        assert lines[0] == lines[1], name


def test_one_goes_on_where_two_stopped(pretrain, together, milk, tmp_path, alone):
    (code, first), (other, second) = together(tmp_path, *RECIPE, "--data.corpus", str(milk), signal=["SIGTERM", 5])
    assert code == other == 130, first + second
    code, output = pretrain(tmp_path, "--resume", "latest")
    assert code == 0, output
    assert_same_training(alone, only_run(tmp_path))


def test_two_go_on_where_one_stopped(pretrain, together, milk, tmp_path, alone):
    code, output = pretrain(tmp_path, *RECIPE, "--data.corpus", str(milk), signal=["SIGTERM", 5])
    assert code == 130, output
    (code, first), (other, second) = together(tmp_path, "--resume", "latest")
    assert code == other == 0, first + second
    assert_same_training(alone, only_run(tmp_path))


def test_sharded_by_fsdp2_it_is_the_same_training_and_an_ordinary_model(pretrain, together, milk, tmp_path, alone):
    """FSDP2 as Accelerate does it, on gloo; one process without shards goes on from its checkpoint in the middle."""
    flags = [*RECIPE, "--data.corpus", str(milk)]
    (code, first), (other, second) = together(tmp_path, *flags, shard=True)
    assert code == other == 0, first + second
    run = only_run(tmp_path)
    assert_same_training(alone, run)
    assert [path.name for path in sorted(run.path.glob("*.py"))] == [p.name for p in sorted(alone.path.glob("*.py"))]
    assert json.loads((run.path / "config.json").read_text()) == json.loads((alone.path / "config.json").read_text())
    ids = torch.arange(20)[None]
    for each in (AutoModelForCausalLM.from_pretrained(run.path), open_model(run.path)[0]):
        with torch.no_grad():
            logits = each(input_ids=ids).logits
            expected = open_model(alone.path)[0](input_ids=ids).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    code, output = pretrain(tmp_path, "--fork", f"{run.id}@6", "--run-name", "whole")
    assert code == 0 and "starts afresh" not in output, output
    (whole,) = tmp_path.glob("runs/whole-*")
    assert_same_training(alone, Run(whole))


def test_shards_go_on_from_a_whole_checkpoint(pretrain, together, milk, tmp_path, alone):
    code, output = pretrain(tmp_path, *RECIPE, "--data.corpus", str(milk), signal=["SIGTERM", 5])
    assert code == 130, output
    (code, first), (other, second) = together(tmp_path, "--resume", "latest", shard=True)
    assert code == other == 0, first + second
    assert_same_training(alone, only_run(tmp_path))


def test_muon_is_not_for_shards(together, milk, tmp_path):
    flags = [*RECIPE, "--data.corpus", str(milk), "--train.optimizer", "muon"]
    for code, output in together(tmp_path, *flags, shard=True):
        assert code == 2 and "Traceback" not in output
        assert "Muon orthogonalises whole weight matrices" in output and "--train.optimizer adamw" in output
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
def test_processes_that_lost_their_launcher_save_and_end(milk, tmp_path):
    """Launched as people do; paused, nothing but the missing launcher could end them."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    settings = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    flags = [*RECIPE, "--train.steps", "3000", "--train.save_every", "3000", "--train.checks", "skip"]
    command = [*launcher, *settings, "training/pretrain.py", *flags, "--data.corpus", str(milk)]
    training = subprocess.Popen([*command, "--workspace", str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(tmp_path.glob("runs/[!.]*/metrics.csv")))
        run = only_run(tmp_path)
        until(lambda: len((run.path / "metrics.csv").read_text().splitlines()) > 3)
        request(run, "pause")
        until(lambda: run.status == "paused")
        workers = psutil.Process(training.pid).children(recursive=True)
        os.kill(training.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(workers, timeout=30)
    finally:
        for process in psutil.Process(training.pid).children(recursive=True) if training.poll() is None else []:
            process.kill()
        training.kill()
        training.wait()
    assert len(gone) >= 2 and not alive
    step = run.info()["progress"]["step"]
    assert run.info()["status"] == "interrupted"
    assert (run.path / "checkpoints" / f"step-{step:06d}" / "COMPLETE").exists()
    assert "asked to stop by the end of its launcher" in (run.path / "train.log").read_text()


def until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.05)
