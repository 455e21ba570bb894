"""A fork is its parent going on, to the bit, until something is changed; then that changes, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.workspace import Workspace, read_json
from hub.metrics import read_metrics
from hub.runs import Run, all_runs
from training.launch import create, flags_of
from training.recipe import OPTIMIZER_DEFAULTS, parse_flags, read_recipe

STEPS, AT = 16, 8
RECIPE = [
    *("--train.steps", str(STEPS), "--train.save_every", "4", "--train.keep_states", "3", "--train.log_every", "3"),
    *("--train.eval_every", "4", "--train.eval_sequences", "4", "--train.sample_every", "4", "--train.threads", "1"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.diagnose_every", "6", "--train.compile", "false"),
    *("--train.optimizer", "muon", "--data.tokenizer", "char", "--model.hidden_dropout", "0.1"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(pretrain, milk, tmp_path_factory) -> Path:
    """A workspace with the parent, whose checkpoint of step 4 has no training state any more."""
    workspace = tmp_path_factory.mktemp("parent")
    code, output = pretrain(workspace, *RECIPE, "--data.corpus", str(milk), "--run-name", "parent")
    assert code == 0, output
    return workspace


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "workspace")


def runs(workspace: Path) -> tuple[Run, Run]:
    """The parent and its only fork."""
    newest, parent = all_runs(Workspace(workspace))
    return parent, newest


def forked(pretrain, workspace: Path, *flags: str, **order) -> tuple[Run, Run, str]:
    code, output = pretrain(workspace, "--fork", *flags, **order)
    assert code == (-9 if order else 0), output
    return *runs(workspace), output


def test_a_fork_is_its_parent_going_on(pretrain, workspace, assert_same_bits):
    parent, run, output = forked(pretrain, workspace, f"parent@{AT}")
    assert_same_bits(parent.path, run.path)
    assert f"{run.id} goes on from {parent.id}@step-{AT:06d}\n" in output
    assert run.name == "parent" and run.id != parent.id
    checkpoint = parent.path / "checkpoints" / f"step-{AT:06d}"
    complete = read_json(checkpoint / "COMPLETE")["sha256"]
    info = run.info()
    assert info["inputs"]["parent"] == {"run": parent.id, "revision": checkpoint.name, "sha256": complete}
    assert info["inputs"]["corpus"] == parent.info()["inputs"]["corpus"]
    assert "passed over" not in output


def test_a_fork_killed_before_its_first_checkpoint_begins_there_again(pretrain, workspace, assert_same_bits):
    parent, run, _ = forked(pretrain, workspace, f"parent@{AT}", kill=["step", AT + 2])
    code, output = pretrain(workspace, "--resume", run.id)
    assert code == 0, output
    assert_same_bits(parent.path, run.path)


def test_a_fork_outlives_its_parent(pretrain, workspace, finished, assert_same_bits):
    parent = all_runs(Workspace(workspace))[0]
    run = create({}, Workspace(workspace), fork=f"parent@{AT}")
    parent.delete()
    code, output = pretrain(workspace, "--resume", run.id, launched=str(run.path))
    assert code == 0, output
    assert_same_bits(all_runs(Workspace(finished))[0].path, run.path)


def test_the_curve_goes_on_with_what_was_changed(pretrain, workspace):
    """Another rate, with the parent's momentum: the first step after the fork is the parent's, scaled."""
    flags = ["--train.learning_rate", "0.01", "--train.embedding_learning_rate", "0.01", "--train.max_grad_norm", "9"]
    parent, run, _ = forked(pretrain, workspace, f"parent@{AT}", "--run-name", "slower", *flags)
    assert run.name == "slower"
    before, after = read_metrics(parent.path), read_metrics(run.path)
    assert after["step"] == list(range(1, STEPS + 1))
    for name in ("train_loss", "learning_rate", "val_loss"):
        assert before[name][:AT] == after[name][:AT]
    assert after["train_loss"][AT] == before["train_loss"][AT]  # the same weights on the same batch
    assert after["learning_rate"][AT:] == pytest.approx([rate / 2 for rate in before["learning_rate"][AT:]])
    assert after["train_loss"][AT + 1] != before["train_loss"][AT + 1]
    steps = [json.loads(line)["step"] for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [4, 8, 12, 16]


@pytest.mark.parametrize(("revision", "flags"), [("8", ["--train.optimizer", "adamw"]), ("4", [])])
def test_without_a_fitting_state_the_optimizer_starts_afresh(pretrain, workspace, revision, flags):
    parent, run, output = forked(pretrain, workspace, f"parent@{revision}", *flags)
    assert f"goes on from {parent.id}@step-00000{revision}; the optimizer starts afresh\n" in output
    assert "passed over" not in output
    at = int(revision)
    before, after = read_metrics(parent.path), read_metrics(run.path)
    assert after["step"] == list(range(1, STEPS + 1))
    assert after["grad_norm"][:at] == before["grad_norm"][:at] and after["grad_norm"][-1] != before["grad_norm"][-1]
    one, other = (
        load_file(r.path / "checkpoints" / f"step-00000{revision}" / "model.safetensors") for r in (parent, run)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    if flags:  # what suits Muon is no rate for AdamW
        train = read_recipe(run.path / "recipe.yaml")["train"]
        assert {name: train[name] for name in OPTIMIZER_DEFAULTS["adamw"]} == OPTIMIZER_DEFAULTS["adamw"]


def test_more_steps_after_the_last(pretrain, workspace):
    _, run, _ = forked(pretrain, workspace, "parent", "--train.steps", str(STEPS + 4))
    assert run.info()["progress"]["step"] == STEPS + 4
    assert read_metrics(run.path)["step"] == list(range(1, STEPS + 5))


@pytest.mark.parametrize(
    ("ref", "flags", "words"),
    [
        ("parent", [], ["step-000016", "--train.steps 32"]),
        ("parent@8", ["--train.steps", "8"], ["step-000008", "--train.steps 16"]),
        ("parent@8", ["--train.epochs", "0.001"], ["step-000008", "--train.steps"]),
        ("parent@8", ["--model.hidden_act", "gelu"], ["architecture", "hidden_act", "'relu2'", "'gelu'"]),
        ("parent@8", ["--model.model_type", "gpt2"], ["architecture", "labgpt", "gpt2"]),
        ("parent@8", ["--data.tokenizer", "bpe", "--data.vocab_size", "300"], ["tokenizer", "milk-char"]),
        ("parent@8", ["--train.lerning_rate", "1"], ["'learning_rate'"]),
        ("parent@9", [], ["no complete revision '9'", "step-000016"]),
        ("parents", [], ["no run 'parents'", "'parent'"]),
    ],
)
def test_what_cannot_be_forked(pretrain, workspace, ref, flags, words):
    code, output = pretrain(workspace, "--fork", ref, *flags)
    assert code == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in output
    for word in words:
        assert word in line, line


def test_a_run_without_checkpoints_is_no_parent(workspace):
    lab = Workspace(workspace)
    Run.create(lab, "empty", "pretrain", ["python", "-m", "training.pretrain"], "", 0, {})
    with pytest.raises(ValueError, match="no checkpoint to fork from"):
        create({}, lab, fork="empty")
    Run.create(lab, "other", "import", ["python", "-m", "hub.convert"], "", 0, {})
    with pytest.raises(ValueError, match="of the kind import"):
        create({}, lab, fork="other")
    assert len(all_runs(lab)) == 3


def test_a_damaged_checkpoint_makes_no_fork(workspace):
    parent = all_runs(Workspace(workspace))[0]
    (parent.path / "checkpoints" / "step-000008" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"step-000008 is torn: config\.json"):
        create({}, Workspace(workspace), fork="parent@8")
    (parent.path / "checkpoints" / "step-000012" / "tokenizer_config.json").open("a").write("\n")
    with pytest.raises(ValueError, match=r"step-000012 is torn: tokenizer_config\.json"):
        create({}, Workspace(workspace), fork="parent@12")
    assert [run.id for run in all_runs(Workspace(workspace))] == [parent.id]


@pytest.mark.parametrize(
    "parts",
    [
        {"data": {"corpus": "my texts/a b.txt", "vocab_size": 300}, "train": {"learning_rate": 1e-4, "epochs": 0.5}},
        {"model": {"preset": "tiny", "qk_norm": False, "rope_parameters": {"rope_theta": 5e5}, "sliding_window": None}},
        {"data": {"corpus": "2024", "tokenizer": "true"}, "train": {"compile": "auto", "deterministic": True}},
        {"data": {"corpus": "null", "text_field": ""}},
    ],
)
def test_flags_say_what_the_parts_say(parts):
    assert parse_flags(flags_of(parts)) == parts
