"""The pipeline: what each stage records, what is said when one fails, and a real one, broken twice and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.corpora import open_corpus
from data.tokenizer import open_tokenizer
from data.workspace import read_json, sha256_file, sha256_json
from hub.runs import Run, all_runs
from training import pipeline as module
from training.jobs import all_jobs, open_job
from training.pipeline import carry_out, make, report, show, stages_of
from training.pipeline_stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TRAIN = {
    "steps": 400, "context": 16, "batch_size": 2, "compile": False, "threads": 1, "save_every": 20, "eval_every": 500,
    "sample_every": 500, "diagnose_every": 500, "eval_sequences": 2, "checks": "skip",
}  # fmt: skip


def parts(corpus: object) -> dict:
    return {"data": {"corpus": str(corpus), "tokenizer": "char"}, "model": MODEL, "train": TRAIN}


@pytest.fixture
def fakes(monkeypatch) -> list[str]:
    """Stages that only say that they were done; the names of those that were."""
    done: list[str] = []

    def fake(name: str):
        def stage(work):
            done.append(name)
            return {"before": {"name": name}}, {name: {"name": f"a {name}", "sha256": "0" * 64}}, {"figure": 1.5}

        return stage

    for name in STAGES:
        monkeypatch.setitem(module.STAGES, name, fake(name))
    return done


def test_every_stage_has_a_folder_with_a_record(workspace, milk, fakes):
    job = make(parts(milk), workspace, skip=("tokens",))
    assert [path.name for path in sorted(job.path.glob("*-*"))] == [
        "1-tokenizer", "2-tokens", "3-training", "4-evaluation", "5-card",
    ]  # fmt: skip
    assert [stage.status for stage in stages_of(job).values()] == ["waiting", "skipped"] + ["waiting"] * 3
    carry_out(job, workspace)
    assert fakes == ["tokenizer", "training", "evaluation", "card"]
    found = report(job)
    assert found["status"] == "completed"
    for stage in found["stages"]:
        if stage["stage"] != "tokens":
            assert stage["status"] == "completed" and stage["started_at"] <= stage["ended_at"]
            assert stage["outputs"][stage["stage"]]["sha256"] == "0" * 64
    assert "figure 1.5000" in show(found)


def test_a_failed_stage_is_named_and_continued(workspace, milk, fakes, monkeypatch):
    whole = module.STAGES["evaluation"]

    def broken(work):
        raise OSError("the disk is full")

    monkeypatch.setitem(module.STAGES, "evaluation", broken)
    job = make(parts(milk), workspace)
    with pytest.raises(ValueError, match=rf"stage evaluation of pipeline {job.id} failed: the disk is full.*--resume"):
        carry_out(job, workspace)
    assert (job.status, stages_of(job)["evaluation"].info()["error"]) == ("failed", "the disk is full")
    assert stages_of(job)["card"].status == "waiting"
    monkeypatch.setitem(module.STAGES, "evaluation", whole)
    carry_out(open_job(workspace, "pipelines", "latest"), workspace)
    assert fakes == ["tokenizer", "tokens", "training", "evaluation", "card"]  # none of them twice
    assert job.status == "completed" and stages_of(job)["evaluation"].info()["error"] is None


def test_a_stage_that_is_stopped_says_so(workspace, milk, fakes, monkeypatch):
    def stopped(work):
        raise KeyboardInterrupt

    monkeypatch.setitem(module.STAGES, "tokens", stopped)
    job = make(parts(milk), workspace)
    with pytest.raises(KeyboardInterrupt):
        carry_out(job, workspace)
    assert (job.status, stages_of(job)["tokens"].status) == ("interrupted", "interrupted")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"skip": ("trainig",)}, "'training'"),
        ({"skip": ("training",)}, "--run RUN"),
        ({"run": "latest"}, "--skip training"),
        ({"skip": ("training",), "run": "nobody"}, "nobody"),
        ({"name": "../up"}, "pipeline name"),
    ],
)
def test_mistakes_leave_nothing_behind(workspace, milk, given, words):
    with pytest.raises(ValueError, match=words):
        make(parts(milk), workspace, **given)
    with pytest.raises(ValueError, match="'steps'"):
        make({"train": {"stepps": 3}}, workspace)
    assert all_jobs(workspace, "pipelines") == []


def begin(workspace, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "training.pipeline", *words, "--json", "--workspace", str(workspace.root)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_broken_twice_and_continued(workspace, milk, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(parts(milk)))
    process = begin(workspace, "--recipe", str(recipe), "--skip", "tokenizer")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    assert "stage tokens of pipeline milk-" in errors and "do not skip the stage tokenizer" in errors

    open_tokenizer("char", open_corpus(str(milk), workspace), 0, workspace)
    process = begin(workspace, "--resume", "latest")
    deadline = time.monotonic() + 240
    while not (runs := all_runs(workspace)) or (runs[0].newest_checkpoint_name() or "") < "step-000040":
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    job = open_job(workspace, "pipelines", "latest")
    assert [stage.status for stage in stages_of(job).values()] == [
        "skipped", "completed", "interrupted", "waiting", "waiting",
    ]  # fmt: skip
    packed = stages_of(job)["tokens"].info()

    process = begin(workspace, "--resume", "milk")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    found = json.loads(output)
    assert [one["status"] for one in found["stages"]] == ["skipped"] + ["completed"] * 4
    assert stages_of(job)["tokens"].info() == packed  # not done again
    assert "resuming milk-" in errors
    (run,) = all_runs(workspace)

    # what went in and came out, by names and hashes worked out here
    _, tokens, training, evaluation, card = found["stages"]
    folder = workspace.root / "tokens" / tokens["outputs"]["tokens"]["name"]
    files = {split: sha256_file(folder / f"{split}.bin") for split in ("train", "validation")}
    assert tokens["outputs"]["tokens"]["sha256"] == sha256_json(files)
    assert training["inputs"]["corpus"]["sha256"] == run.info()["inputs"]["corpus"]["sha256"]
    assert training["inputs"]["tokens"] == tokens["outputs"]["tokens"]
    last = run.path / "checkpoints" / "step-000400"
    made = {"id": run.id, "revision": last.name, "sha256": read_json(last / "COMPLETE")["sha256"]}
    assert training["outputs"]["run"] == evaluation["inputs"]["run"] == card["inputs"]["run"] == made
    assert card["outputs"]["card"]["sha256"] == sha256_file(run.path / "README.md")
    # the model that was saved is as good as the one that was trained
    assert evaluation["result"]["loss"] == pytest.approx(run.info()["result"]["val_loss"], abs=1e-5)

    other = make({}, workspace, skip=("tokenizer", "tokens", "training"), run="latest")
    carry_out(other, workspace)
    assert stages_of(other)["evaluation"].info()["inputs"]["run"]["id"] == run.id
    assert stages_of(other)["evaluation"].info()["result"]["loss"] == pytest.approx(evaluation["result"]["loss"])
    assert [Run(path).id for path in (workspace.root / "runs").glob("[!.]*/")] == [run.id]
