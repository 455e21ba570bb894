"""An experiment's plan and its folder, and how its runs are carried out: none repeated, none lost, all marked."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from data.workspace import read_json
from finetune import experiment_runs, learning_rate, loss_curve
from finetune.experiment import NAMES, ROOM, carry_out, experiment_of, find_or_make, plan_of, publish
from finetune.experiment_base import find_base
from finetune.experiment_plan import EVALUATIONS, SMALL, Plan
from finetune.experiment_results import results_of
from hub.metrics import Metrics
from hub.runs import Run, all_runs

ROOT = Path(__file__).resolve().parents[2]
TINY = {"train": {"steps": 16, "batch_size": 2, "context": 64, "threads": 1, "warmup_steps": 1, "eval_sequences": 2}}


@pytest.fixture
def base(lab, tmp_path) -> str:
    """The folder of a tiny Qwen3 with random weights and the lab's chat template."""
    tokenizer = lab()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path / "tiny"
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def chats(tmp_path) -> str:
    file = tmp_path / "chats.jsonl"
    asked = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"It is {i % 4}."}]}
        for i in range(40)
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in asked))
    return str(file)


# The plan


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_reads_back_and_its_content_is_its_id(name):
    plan = experiment_of(name).plan(seeds=2)
    assert Plan.from_yaml(plan.to_yaml()) == plan and Plan.from_yaml(plan.to_yaml()).id == plan.id
    others = [experiment_of(name).plan(seeds=3), experiment_of(name).plan(seeds=2, data="alpaca")]
    others += [experiment_of(name).plan(seeds=2, given={"train": {"steps": 48}})]
    assert len({plan.id, *(one.id for one in others)}) == 4
    assert len({one.key for one in plan.settings}) == len(plan.settings)
    named = {plan.run_name(n, seed) for n in range(len(plan.settings)) for seed in plan.seeds}
    assert len(named) == 2 * len(plan.settings)


def test_settings_differ_in_what_they_say_and_nothing_else():
    plan = learning_rate.EXPERIMENT.plan(seeds=1)
    recipes = [plan.recipe_of(n, 7, "base") for n in range(len(plan.settings))]
    assert {one["train"].pop("seed") for one in recipes} == {7}
    rates = [one["train"].pop("learning_rate") for one in recipes]
    assert rates == sorted(rates) and all(one == recipes[0] for one in recipes)
    assert recipes[0]["model"]["base"] == "base"


def test_a_large_base_has_the_recipes_defaults_and_its_own_grid():
    plan = learning_rate.EXPERIMENT.plan(base="Qwen/Qwen2.5-7B-Instruct", data="alpaca")
    assert "quantization" not in plan.parts["model"] and "batch_size" not in plan.parts["train"]
    rates = [one.parts["train"]["learning_rate"] for one in plan.settings]
    assert (rates[0], rates[-1], len(rates)) == (1e-5, 5e-3, 7)
    assert plan.command[5:9] == ["--base", "Qwen/Qwen2.5-7B-Instruct", "--data", "alpaca"]
    healthy, _, high, low = loss_curve.EXPERIMENT.plan(base="org/model").settings  # of the recipe's 2e-4
    assert healthy.parts == {} and high.parts["train"]["learning_rate"] == pytest.approx(2e-4 * loss_curve.HIGHER)
    assert low.parts["train"]["learning_rate"] == pytest.approx(2e-4 * loss_curve.LOWER)


def test_flags_win_and_evaluations_follow_the_steps():
    plan = learning_rate.EXPERIMENT.plan(given={"train": {"steps": 80, "batch_size": 4}})
    train = plan.parts["train"]
    assert (train["steps"], train["batch_size"]) == (80, 4)
    assert train["context"] == SMALL["train"]["context"] and train["eval_every"] == 80 // EVALUATIONS


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seeds": 0}, "--seeds should be at least 1"),
        ({"given": {"train": {"seed": 3}}}, "--seeds N"),
        ({"given": {"train": {"epochs": 1}}}, "the same number of steps"),
        ({"given": {"model": {"base": "x"}}}, "--base MODEL"),
        ({"given": {"train": {"steps": 7}}}, "at least 8"),
        ({"given": {"train": {"steps": "many"}}}, "at least 8, not 'many'"),
        ({"given": {"train": {"stepps": 7}}}, "did you mean 'steps'"),
        ({"given": {"model": {"rank": 0}}}, "model.rank cannot be 0"),
        ({"data": " "}, "data.source is empty"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(asked, words):
    with pytest.raises(ValueError, match=words) as caught:
        learning_rate.EXPERIMENT.plan(**asked)
    assert "\n" not in str(caught.value)


def test_the_folder_is_there_first_with_its_command(workspace):
    plan = loss_curve.EXPERIMENT.plan(seeds=2)
    job = find_or_make(plan, workspace)
    assert job.path == workspace.root / ROOM / plan.id and find_or_make(plan, workspace).path == job.path
    assert (job.status, job.module(), plan_of(job)) == ("queued", "finetune.loss_curve", plan)
    assert job.resume_command().startswith(f"python -m finetune.loss_curve --resume {plan.id}")
    assert results_of(job) is None and all_runs(workspace) == []


# Carrying it out, with runs that are made up


class Pretended:
    """In the place of a run's process: it ends at once, as `fate` says of the run's name."""

    def __init__(self, fate):
        self.fate, self.trained = fate, []

    def __call__(self, run: Run, workspace):
        self.trained.append(run.name)
        run.update(model={"parameters": 1100, "parameters_trainable": 100})
        metrics = Metrics(run.path)
        ends = self.fate(run.name)
        for step in range(1, 17):
            metrics.add(step, train_loss=float("nan") if ends == "diverged" and step > 4 else 3.0 / step**0.3)
            if step % 2 == 0:
                metrics.note(step, val_loss=3.0 / step**0.3, eval_train_loss=3.0 / step**0.3)
        metrics.close()
        if ends == "diverged":
            run.finish("failed", error="the loss is not a number at step 5; no checkpoint had been saved yet")
        elif ends == "failed":
            run.finish("failed", error="chats.jsonl, line 3: no assistant turn")
        else:
            run.finish(ends, result={"val_loss": 1.3, "train_loss": 1.2, "seconds": 2.0})
        return self

    def is_alive(self) -> bool:
        return False


@pytest.fixture
def pretend(monkeypatch, workspace, base):
    """(fate) -> what stands for the processes, and the job of a small experiment."""

    def make(fate=lambda name: "completed"):
        processes = Pretended(fate)
        monkeypatch.setattr(experiment_runs, "begin", processes)
        plan = loss_curve.EXPERIMENT.plan(base=base, seeds=2, given=TINY)
        return processes, find_or_make(plan, workspace)

    return make


def test_all_settings_are_trained_with_one_seed_before_the_next(pretend, workspace):
    processes, job = pretend(lambda name: "diverged" if "too-high" in name else "completed")
    found = carry_out(job, workspace)
    settings = ("healthy", "over-fitted", "too-high", "too-low")
    assert processes.trained == [f"loss-curve-{one}-s{seed}" for seed in (0, 1) for one in settings]
    assert (found["finished"], found["runs"], job.status) == (8, 8, "completed")
    high = found["settings"][2]["runs"]
    assert [run["status"] for run in high] == ["diverged"] * 2 and high[0]["val_loss"] is None
    assert high[0]["verdict"]["reason"] == "the training loss is not a number at step 5"
    assert read_json(job.path / "results.json") == found == results_of(job)
    assert found["conclusion"] == job.info()["result"]["conclusion"] != ""
    for run in all_runs(workspace):
        mine = run.info()["inputs"]["experiment"]
        assert mine["id"] == job.id and run.name.endswith(f"s{mine['seed']}") and run.info()["kind"] == "finetune"


def test_started_again_it_repeats_nothing(pretend, workspace, tmp_path):
    _, job = pretend(lambda name: "interrupted" if name == "loss-curve-too-low-s0" else "completed")
    with pytest.raises(ValueError, match=r"loss-curve-too-low-s0-.* did not come to its end: interrupted"):
        carry_out(job, workspace)
    assert job.status == "failed" and len(all_runs(workspace)) == 4
    assert (results_of(job)["finished"], results_of(job)["conclusion"]) == (3, None)
    ids = {run.id for run in all_runs(workspace)}
    again, _ = pretend()
    found = carry_out(job, workspace)
    assert again.trained[0] == "loss-curve-too-low-s0" and len(again.trained) == 5
    assert ids <= {run.id for run in all_runs(workspace)} and len(all_runs(workspace)) == 8
    assert found["finished"] == 8
    publish(job, tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert found["conclusion"] in report and (tmp_path / "out" / "curves.png").is_file()


def test_a_mistake_in_the_data_stops_it_with_the_runs_own_sentence(pretend, workspace):
    processes, job = pretend(lambda name: "failed")
    with pytest.raises(ValueError, match=r"chats\.jsonl, line 3: no assistant turn"):
        carry_out(job, workspace)
    assert len(processes.trained) == 1 and "line 3" in job.info()["error"]


def test_where_there_is_no_small_base_it_is_trained_first(workspace, monkeypatch, base):
    def fate(name: str) -> str:
        for run in all_runs(workspace):
            if run.name == "primer":  # what its training leaves
                shutil.copytree(base, run.path, dirs_exist_ok=True)
                run.update(inputs={"corpus": {"name": "primer"}})
        return "completed"

    processes = Pretended(fate)
    monkeypatch.setattr(experiment_runs, "begin", processes)
    job = find_or_make(loss_curve.EXPERIMENT.plan(seeds=1, given=TINY), workspace)
    found = carry_out(job, workspace)
    made = next(run for run in all_runs(workspace) if run.name == "primer")
    assert processes.trained[0] == "primer" and len(processes.trained) == 5
    assert (made.info()["kind"], made.module()) == ("pretrain", "training.pretrain")
    assert job.info()["outputs"] == {"base": made.id} and found["finished"] == 4
    others = [run for run in all_runs(workspace) if run.id != made.id]
    assert {yaml.safe_load((run.path / "recipe.yaml").read_text())["model"]["base"] for run in others} == {made.id}


def test_the_small_base_is_a_finished_qwen3_of_the_primer(workspace):
    def made(name: str, corpus: str, model_type: str | None, status: str) -> Run:
        recipe = f"model: {{model_type: {model_type}}}\n"
        run = Run.create(workspace, name, "pretrain", ["python"], recipe, 0, {"corpus": {"name": corpus}})
        run.update(status=status)
        return run

    assert find_base(workspace) is None
    wanted = made("primer", "primer-0a1b2c", "qwen3", "completed")
    for other in (("a", "tales", "qwen3", "completed"), ("b", "primer", "llama", "completed")):
        made(*other)
    made("c", "primer", "qwen3", "interrupted")
    assert find_base(workspace) == wanted.id


# Real processes


@pytest.mark.slow
def test_killed_in_the_middle_it_finishes_without_repeating_a_run(workspace, base, chats):
    words = ["--base", base, "--data", chats, "--seeds", "1", "--json", "--workspace", str(workspace.root)]
    words += ["--model.quantization", "none", "--model.rank", "2"]
    words += [word for key, value in TINY["train"].items() for word in (f"--train.{key}", str(value))]
    command = [sys.executable, "-m", "finetune.loss_curve", *words]

    def begin() -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    first = begin()
    deadline = time.monotonic() + 240
    while sum(run.status == "completed" for run in all_runs(workspace)) < 1:
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)  # all of it: the experiment, its server of processes, the run
    first.communicate()
    before = {run.name: run.info() for run in all_runs(workspace) if run.status == "completed"}

    second = begin()
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    found = json.loads(output)
    assert found["finished"] == found["runs"] == len(all_runs(workspace)) == 4
    after = {run.name: run.info() for run in all_runs(workspace)}
    for name, info in before.items():  # finished before it was killed, and not touched since
        assert all(after[name][part] == info[part] for part in ("id", "started_at", "ended_at", "process"))
    job = Run(next((workspace.root / ROOM).iterdir()))
    assert job.status == "completed" and (job.path / "report.md").is_file()
    assert found["origin"]["base"]["sha256"] and found["origin"]["examples"]["name"].startswith("chats")
