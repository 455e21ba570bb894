"""Fine-tuning by processes: two train what one would, a killed one goes on, a signal stops it, mistakes are lines."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config

from data.tales import tales
from data.workspace import Workspace
from hub.models import open_model
from hub.runs import Run, all_runs
from tests.training.conftest import serving

STEPS = 6
FLAGS = [
    *("--train.steps", str(STEPS), "--train.batch_size", "4", "--train.save_every", "3", "--train.log_every", "1"),
    *("--train.eval_every", "3", "--train.sample_every", "6", "--train.threads", "1", "--train.device", "cpu"),
    *("--train.learning_rate", "1e-2", "--train.warmup_steps", "1", "--model.rank", "4"),
]


@pytest.fixture(scope="module")
def tune():
    with serving("finetune.qlora") as trainer:
        yield trainer


@pytest.fixture(scope="module")
def flags(tmp_path_factory, qwen) -> list[str]:
    """A base of random weights, examples with answers of many lengths, and the settings."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = qwen("qwen3")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=96,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "qwen")
    tokenizer.save_pretrained(folder / "qwen")
    rows = [{"prompt": f"count to {n}", "completion": " ".join(map(str, range(1, n + 1)))} for n in range(1, 17)]
    (folder / "counting.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--base", str(folder / "qwen"), "--data", str(folder / "counting.jsonl"), *FLAGS]


@pytest.fixture(scope="module")
def alone(tune, flags, tmp_path_factory) -> Run:
    workspace = tmp_path_factory.mktemp("alone")
    code, output = tune(workspace, *flags)
    assert code == 0, output
    assert "an adapter of" in output and "the adapter is in" in output and "Warning" not in output
    return only_run(workspace)


def only_run(workspace: Path) -> Run:
    (record,) = workspace.glob("runs/[!.]*/run.json")
    return Run(record.parent)


def curve(run: Run) -> torch.Tensor:
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train_loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return torch.tensor([[row["train_loss"], row["grad_norm"]] for row in rows])


def adapter(run: Run) -> torch.Tensor:
    saved = load_file(run.path / "adapter_model.safetensors")
    return torch.cat([value.flatten() for _, value in sorted(saved.items())])


def test_two_processes_train_what_one_does(tune, flags, alone, tmp_path):
    """Each rank's answers have other numbers of tokens: the mean is over all of them, not over ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pids = [
        tune.begin(tmp_path, *flags, environment={**group, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    ended = [tune.wait(pid) for pid in pids]
    assert [code for code, _ in ended] == [0, 0], ended
    together = only_run(tmp_path)
    torch.testing.assert_close(curve(together), curve(alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(adapter(together), adapter(alone), rtol=0, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_bits(tune, flags, alone, tmp_path):
    code, _ = tune(tmp_path, *flags, kill=["step", 5])
    assert code == -9
    assert only_run(tmp_path).status == "interrupted"
    code, output = tune(tmp_path, "--resume", "latest")
    assert code == 0 and "resuming" in output and "from step-000003" in output, output
    run = only_run(tmp_path)
    assert torch.equal(adapter(run), adapter(alone))
    assert torch.equal(curve(run), curve(alone))


def test_a_signal_stops_it_cleanly(tune, flags, alone, tmp_path):
    code, output = tune(tmp_path, *flags, signal=["SIGTERM", 2])
    run = only_run(tmp_path)
    assert code == 130 and f"python -m finetune.qlora --resume {run.id}" in output, output
    assert run.status == "interrupted" and run.newest_checkpoint_name() == "step-000002"
    code, output = tune(tmp_path, "--resume", run.id)
    assert code == 0, output
    assert torch.equal(adapter(run), adapter(alone))


def test_a_qwen_pretrained_in_the_lab_learns_to_answer(tune, flags, tmp_path):
    """From a base that saw tales alone, in 4 bits: the template's own tokens are learnt with the answers."""
    (tmp_path / "told.jsonl").write_text("".join(json.dumps({"text": tale.text}) + "\n" for tale in tales(200, seed=0)))
    code, output = tune(
        tmp_path, "--run-name", "base", "--data.corpus", str(tmp_path / "told.jsonl"), "--data.vocab_size", "400",
        "--train.steps", "40", "--train.context", "64", "--train.batch_size", "8", "--train.threads", "1",
        "--train.compile", "false", "--train.eval_every", "40", "--train.diagnose_every", "40", "--model.model_type",
        "qwen3", "--model.hidden_size", "64", "--model.num_hidden_layers", "1", "--model.head_dim", "32",
        "--model.num_attention_heads", "2", "--model.num_key_value_heads", "1", "--model.intermediate_size", "64",
        "--model.max_position_embeddings", "128", module="training.pretrain",
    )  # fmt: skip
    assert code == 0, output
    code, output = tune(tmp_path, *flags, "--base", "base", "--train.steps", "12", "--train.save_every", "12")
    assert code == 0, output
    run = next(run for run in all_runs(Workspace(tmp_path)) if run.info()["kind"] == "finetune")
    base = run.info()["inputs"]["base"]
    assert base["id"].startswith("base-") and base["revision"] == "step-000040"
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    model, tokenizer = open_model(run.path, Workspace(tmp_path))
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
    assert any("trainable_tokens" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [(["--base", "nobody"], "no run 'nobody'"), (["--data", "nothing.jsonl"], "nothing.jsonl"),
     (["--model.quantization", "nf5"], "model.quantization cannot be 'nf5'"),
     (["--train.batch_size", "0"], "train.batch_size cannot be 0"), (["--model.rnak", "4"], "did you mean")],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(tune, flags, tmp_path, changed, sentence):
    code, output = tune(tmp_path, *flags, *changed)
    assert code == 2 and sentence in output and "Traceback" not in output, output
    assert not list(tmp_path.glob("runs/*"))
