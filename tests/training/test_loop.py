"""The loop: what must not change the training, what a signal does, and which models it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.tokens import as_batch
from hub.models import open_model
from training.loop import loss_of, slices

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("--train.steps", "6", "--train.save_every", "6", "--train.log_every", "2", "--train.compile", "false"),
    *("--train.context", "32", "--train.batch_size", "8", "--train.threads", "1", "--train.eval_sequences", "4"),
    *("--train.learning_rate", "1e-3", "--train.optimizer", "adamw", "--data.tokenizer", "char"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


def only_run(workspace: Path) -> Path:
    (record,) = workspace.glob("runs/*/run.json")
    return record.parent


def weights(workspace: Path) -> dict[str, torch.Tensor]:
    return load_file(only_run(workspace) / "model.safetensors")


def assert_close(one: dict, other: dict, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.dist(one[name], other[name], p=float("inf")) <= tolerance, name


def test_micro_batches_are_the_batch(pretrain, milk, tmp_path):
    for accumulate in ("1", "4"):
        workspace = tmp_path / accumulate
        code, output = pretrain(workspace, *SMALL, "--data.corpus", str(milk), "--train.accumulate", accumulate)
        assert code == 0, output
    assert_close(weights(tmp_path / "1"), weights(tmp_path / "4"), 2e-6)


@pytest.mark.slow
def test_accelerate_launch_from_another_folder(milk, tmp_path):
    """The literal command, and a saved run that opens by the library's classes."""
    flags = [*SMALL, "--data.corpus", str(milk), "--workspace", str(tmp_path)]
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    result = subprocess.run(
        [*launcher, str(ROOT / "training" / "pretrain.py"), *flags],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "the model is in" in result.stdout


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_the_run_goes_on(pretrain, milk, tmp_path, signal_name):
    code, output = pretrain(tmp_path, *SMALL, "--data.corpus", str(milk), signal=[signal_name, 3])
    assert code == 130, output
    run = only_run(tmp_path)
    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "interrupted"
    assert (run / "checkpoints" / "step-000003" / "COMPLETE").exists()
    assert f"--resume {run.name}" in output
    code, output = pretrain(tmp_path, "--resume", run.name)
    assert code == 0, output
    assert json.loads((run / "run.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("qwen3", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                   "head_dim": 8, "intermediate_size": 32}),
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2}),
    ],
)  # fmt: skip
def test_any_causal_model_is_trained_and_opened(pretrain, milk, tmp_path, model_type, fields):
    flags = [*SMALL[: SMALL.index("--model.hidden_size")], "--data.corpus", str(milk), "--model.model_type", model_type]
    flags += [word for name, value in fields.items() for word in (f"--model.{name}", str(value))]
    code, output = pretrain(tmp_path, *flags, "--train.label_smoothing", "0.1", "--train.precision", "bf16")
    assert code == 0, output
    run = only_run(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(run)
    assert model.config.model_type == model_type
    assert AutoTokenizer.from_pretrained(run)("milk")["input_ids"]
    assert model.dtype == torch.float32


def test_a_finished_run_is_whole(pretrain, milk, tmp_path, workspace):
    """What the plan promises of a run folder is there, and says what happened."""
    code, output = pretrain(workspace.root, *SMALL, "--data.corpus", str(milk), "--train.diagnose_every", "3")
    assert code == 0, output
    run = only_run(workspace.root)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "recipe.yaml", "metrics.csv",
                 "metrics.jsonl", "samples.jsonl", "train.log", "curve.png", "modeling_labgpt.py"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,tokens_sec,grad_norm,update_ratio,dead_perc,train_loss")
    assert [row.split(",")[0] for row in rows] == [str(step) for step in range(1, 7)]
    ratios = [row.split(",")[3] for row in rows]
    assert [bool(ratio) for ratio in ratios] == [False, False, True, False, False, True]  # blank between its cadences
    info = json.loads((run / "run.json").read_text())
    assert info["progress"]["step"] == info["progress"]["steps"] == 6
    assert info["result"]["val_loss"] == pytest.approx(np.log(info["result"]["perplexity"]))
    model, tokenizer = open_model("latest", workspace)
    assert sum(p.numel() for p in model.parameters()) == info["model"]["parameters"]
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_slices_cover_the_global_batch():
    rows = np.arange(8 * 5).reshape(8, 5)
    parts = list(slices(as_batch(rows), 4, Accelerator(cpu=True)))
    assert torch.cat([part["input_ids"] for part in parts]).tolist() == rows[:, :-1].tolist()
    assert torch.cat([part["labels"] for part in parts]).tolist() == rows[:, 1:].tolist()


def test_label_smoothing_is_torchs():
    class Fixed(nn.Module):
        def forward(self, input_ids, use_cache):
            return type("Output", (), {"logits": logits})

    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    loss = loss_of(Fixed(), {"input_ids": labels, "labels": labels}, torch.tensor(6), smoothing=0.2)
    p = logits.log_softmax(-1)
    by_hand = -(0.8 * p.gather(-1, labels[..., None]).squeeze(-1) + 0.2 * p.mean(-1)).mean()
    torch.testing.assert_close(loss, by_hand)
