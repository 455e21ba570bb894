"""A run replayed is the run; one whose record was changed is not, and the first thing that differs is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.workspace import Workspace, read_json, sha256_file, sha256_json, write_json
from hub.runs import Run, all_runs
from training import verify
from training.comparison import compare_rows, weights_of
from training.initial import weights_sha256

ROOT = Path(__file__).resolve().parents[2]
RECIPE = [
    *("--train.steps", "12", "--train.save_every", "4", "--train.keep_states", "2", "--train.log_every", "3"),
    *("--train.eval_every", "4", "--train.eval_sequences", "4", "--train.sample_every", "6", "--train.threads", "1"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.diagnose_every", "5", "--train.compile", "false"),
    *("--train.optimizer", "muon", "--data.tokenizer", "char", "--model.hidden_dropout", "0.1"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(pretrain, milk, tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("trained")
    code, output = pretrain(workspace, *RECIPE, "--data.corpus", str(milk))
    assert code == 0, output
    return workspace


@pytest.fixture
def workspace(trained, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(trained, tmp_path / "workspace"))


@pytest.fixture
def run(workspace) -> Run:
    return all_runs(workspace)[0]


@pytest.fixture(autouse=True)
def one_thread():
    """A replay sets the number of threads, and determinism, for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def content(folder: Path) -> dict[str, str]:
    return {str(path): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def rewrite(checkpoint: Path, name: str) -> None:
    """Vouch for a changed file as if it had been saved so."""
    record = read_json(checkpoint / "COMPLETE")
    record.pop("sha256")
    file = checkpoint / name
    record["model"][name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    write_json(checkpoint / "COMPLETE", {**record, "sha256": sha256_json(record)})


@pytest.mark.parametrize(
    ("since", "steps", "took", "compared"),
    [
        (None, None, ("step-000008", [9, 12]), ["step-000012"]),
        ("start", None, ("start", [1, 4]), ["step-000004"]),
        ("start", 9, ("start", [1, 9]), ["step-000004", "step-000008"]),
        ("8", 2, ("step-000008", [9, 10]), []),
    ],
)
def test_a_replay_is_equal_and_writes_nothing_of_the_run(run, workspace, since, steps, took, compared):
    before = content(run.path)
    result = verify.replay(run, workspace, steps, since)
    assert result["equal"] and result["first_difference"] is None
    assert (result["from"], result["steps"]) == took
    assert result["measured"] == {"steps": took[1][1] - took[1][0] + 1, "equal": True}
    assert [item["revision"] for item in result["checkpoints"]] == compared
    for item in result["checkpoints"]:
        saved = load_file(run.path / "checkpoints" / item["revision"] / "model.safetensors")
        assert item["weights"] == {"sha256": weights_sha256(saved), "tensors": len(saved), "equal": True}
        kept = item["revision"] != "step-000004"  # whose state is gone
        assert bool(item["optimizer"]) == kept and (not kept or item["optimizer"]["equal"])
    assert content(run.path) == before


def test_a_changed_measurement_is_named(run, workspace):
    file = run.path / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    row = next(row for row in rows if row["step"] == 10)
    was, row["grad_norm"] = row["grad_norm"], row["grad_norm"] * (1 + 1e-7)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = verify.replay(run, workspace)
    assert not result["equal"] and not result["measured"]["equal"]
    assert result["first_difference"] == {
        "step": 10, "name": "grad_norm", "run": repr(row["grad_norm"]), "replay": repr(was),
    }  # fmt: skip
    assert "different from step 10 on: grad_norm was" in verify.summary(result)


def test_a_changed_weight_is_named(run, workspace):
    checkpoint = run.path / "checkpoints" / "step-000012"
    weights = weights_of(checkpoint)
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name][3, 5] += 0.25
    (checkpoint / "model.safetensors").unlink()  # the run's root shares the file
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    rewrite(checkpoint, "model.safetensors")
    result = verify.replay(run, workspace)
    assert result["measured"]["equal"] and not result["equal"]
    assert (result["first_difference"]["step"], result["first_difference"]["name"]) == (12, f"weights {name}")
    assert "0.25 off at most" in result["first_difference"]["replay"]
    (item,) = result["checkpoints"]
    assert not item["weights"]["equal"] and item["optimizer"]["equal"]


def test_the_first_difference_is_the_earliest_step():
    rows = {step: {"step": step, "train_loss": 1.0 / step} for step in (1, 2, 3)}
    assert compare_rows(rows, rows) is None
    other = {**rows, 2: {**rows[2], "train_loss": 0.6}, 3: {**rows[3], "train_loss": 0.7}}
    assert (compare_rows(rows, other).step, compare_rows(rows, other).name) == (2, "train_loss")
    assert compare_rows(rows, {1: rows[1], 2: rows[2]}).step == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"since": "4"}, "step-000004 has no training state left .*step-000008, step-000012"),
        ({"since": "12"}, "took no steps after step 12"),
        ({"since": "9"}, "no complete revision '9'"),
        ({"since": "8", "steps": 5}, "from step 8 there are 1 to 4"),
        ({"steps": 0}, "--steps 0"),
    ],
)
def test_what_cannot_be_replayed(run, workspace, arguments, words):
    with pytest.raises(ValueError, match=words):
        verify.replay(run, workspace, **arguments)


def test_other_software_is_named_and_refused(run, workspace):
    run.update(versions={"torch": "0.1"}, code_sha="0" * 64)
    with pytest.raises(ValueError, match=r"code of modeling/ changed .*; torch 0\.1 is now"):
        verify.replay(run, workspace)
    result = verify.replay(run, workspace, steps=1, force=True)
    assert result["equal"] and len(result["changed"]) == 2


def test_the_command(workspace, run):
    def command(*words: str) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "training.verify", *words, "--workspace", str(workspace.root)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    done = command("latest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal bit for bit" in done.stdout and "step-000012 optimizer" in done.stdout
    wrong = command("latest", "--from", "4")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
    csv = run.path / "metrics.jsonl"
    csv.write_text(csv.read_text().replace('"step": 11, ', '"step": 11, "planted": 1, '))
    different = command("latest", "--json")
    assert different.returncode == 1
    assert json.loads(different.stdout)["first_difference"]["name"] == "planted"
