"""What people get wrong: one clear line, exit code 2, and nothing lost."""

import os
from pathlib import Path

import pytest

QUICK = [
    *("--train.steps", "6", "--train.save_every", "2", "--train.log_every", "1", "--train.compile", "false"),
    *("--train.context", "16", "--train.batch_size", "2", "--train.threads", "1", "--train.eval_sequences", "2"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2"),
    *("--data.tokenizer", "char"),
]  # fmt: skip


def refused(answer: tuple[int, str], *words: str) -> str:
    """The one line a mistake is answered with."""
    code, output = answer
    assert code == 2, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line, line
    return line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["nothing.txt"]),
        (b"", ["text.txt", "empty"]),
        (b"caf\xe9 au lait, and more of it", ["text.txt", "UTF-8", "3"]),
        (b"too short", ["16", "context"]),
    ],
    ids=["missing", "empty", "not UTF-8", "shorter than one context"],
)
def test_a_file_that_cannot_be_trained_on(pretrain, tmp_path, content, words):
    path = tmp_path / ("nothing.txt" if content is None else "text.txt")
    if content is not None:
        path.write_bytes(content)
    refused(pretrain(tmp_path / "w", *QUICK, "--data.corpus", str(path)), *words)
    assert not list(tmp_path.glob("w/runs/*"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.lerning_rate", "1"], ["lerning_rate", "'learning_rate'"]),
        (["--model.num_attention_heads", "3"], ["num_attention_heads=3", "hidden_size=16"]),
        (["--data.tokenizer", "no-such-tokenizer"], ["no-such-tokenizer"]),
        (["--model.vocab_size", "5"], ["model.vocab_size 5", "tokenizer"]),
        (["--recipe", "shakespear"], ["'shakespeare'"]),
        (["--train.device", "cuda"], ["'cuda'", "cpu"]),
        (["--resume", "no-such-run"], ["no-such-run"]),
    ],
)
def test_flags_that_cannot_be(pretrain, milk, tmp_path, flags, words):
    refused(pretrain(tmp_path, *QUICK, "--data.corpus", str(milk), *flags), *words)
    assert not list(tmp_path.glob("runs/*"))


def test_a_workspace_that_cannot_be_written(pretrain, milk, tmp_path):
    """A file stands where the folder should be: that stops even root, whom permissions do not."""
    (tmp_path / "w").write_text("not a folder")
    refused(pretrain(tmp_path / "w", *QUICK, "--data.corpus", str(milk)), str(tmp_path / "w"), "--workspace")


@pytest.fixture
def trained(pretrain, milk, tmp_path) -> Path:
    """A workspace with a run that was killed after its second checkpoint."""
    code, output = pretrain(tmp_path, *QUICK, "--data.corpus", str(milk), kill=["step", 5])
    assert code == -9, output
    return tmp_path


def contents(workspace: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workspace.glob("runs/*/checkpoints/*/*") if path.is_file()}


def test_resuming_with_something_else(pretrain, trained):
    before = contents(trained)
    other = trained / "other.txt"
    other.write_text("Quite another text about quite other things, told at some length. " * 40)
    for flags, words in (
        (["--data.corpus", str(other)], ["corpus", "milk", "other"]),
        (["--data.tokenizer", "bpe", "--data.vocab_size", "300"], ["tokenizer", "milk-char"]),
        (["--model.hidden_act", "gelu"], ["architecture", "hidden_act", "'relu2'", "'gelu'"]),
        (["--model.num_hidden_layers", "2"], ["architecture", "num_hidden_layers"]),
    ):
        refused(pretrain(trained, "--resume", "latest", *flags), *words)
    assert contents(trained) == before
    code, output = pretrain(trained, "--resume", "latest")
    assert code == 0, output


def test_a_loss_that_is_not_a_number(pretrain, milk, tmp_path):
    answer = pretrain(tmp_path, *QUICK, "--data.corpus", str(milk), poison=5)
    refused(answer, "step 5", "step-000004", "--train.learning_rate")
    names = sorted(path.name for path in tmp_path.glob("runs/*/checkpoints/*"))
    assert names == ["step-000002", "step-000004"]
    code, output = pretrain(tmp_path, "--resume", "latest", "--train.learning_rate", "1e-4")
    assert code == 0, output
    assert "from step-000004" in output


@pytest.mark.parametrize("limit", [6_000, 30_000])
def test_a_full_disk_while_saving(pretrain, milk, tmp_path, limit):
    """RLIMIT_FSIZE makes the kernel refuse the write, as a full disk would; small limits hit the first file."""
    code, output = pretrain(tmp_path, *QUICK, "--data.corpus", str(milk), kill=["step", 3])
    assert code == -9, output
    before = contents(tmp_path)
    refused(pretrain(tmp_path, "--resume", "latest", file_limit=limit), "step 4", "step 2", "--resume")
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob("runs/*/checkpoints/.*"))
    code, output = pretrain(tmp_path, "--resume", "latest")
    assert code == 0, output


def test_one_run_is_trained_by_one_process(pretrain, trained):
    from hub.runs import Run

    (run,) = (Run(path.parent) for path in trained.glob("runs/*/run.json"))
    with run.lock():
        refused(pretrain(trained, "--resume", "latest"), run.id)
    assert os.path.exists(run.path / "checkpoints" / "step-000004" / "COMPLETE")  # noqa: PTH110
