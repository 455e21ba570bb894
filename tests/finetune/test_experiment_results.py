"""What the four experiments say, from made-up runs whose means, intervals and losers are known by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.workspace import read_json, write_json
from finetune import forgetting, learning_rate, lora_rank, loss_curve
from finetune.experiment import NAMES, experiment_of
from finetune.experiment_report import markdown, save_figures
from finetune.experiment_results import difference, excludes_zero, summary
from finetune.experiment_verdict import HEALTHY, OVER_FITTED, TOO_HIGH, TOO_LOW, Curve, verdict
from training.sweep_results import t_quantile

ORIGIN = {
    "base": {"id": "primer-abc123", "revision": "step-000900", "sha256": "a" * 64},
    "examples": {"name": "stories-0a1b2c", "sha256": "b" * 64},
    "model": {"parameters": 1_234_567, "parameters_trainable": 65_432},
    "machine": {"cpu": "a processor", "threads": 2, "gpus": [], "memory": 8 * 2**30},
    "versions": {"python": "3.12", "torch": "2.13"},
}
STEPS = 60
COMMITTED = sorted(Path(__file__).resolve().parents[2].glob("docs/experiments/finetune-*/results.json"))


def curve(train, validation=None, scored=None) -> Curve:
    """From training losses of every step, and of both splits at every tenth."""
    columns: dict = {
        "step": list(range(1, len(train) + 1)),
        "train_loss": list(train),
    }
    for name, values in (("val_loss", validation), ("eval_train_loss", scored)):
        columns[name] = [None] * len(train)
        for i, value in enumerate(values or ()):
            columns[name][10 * (i + 1) - 1] = value
    return Curve.of(columns)


def falling(start: float, end: float, sharp: float = 5.0) -> np.ndarray:
    return end + (start - end) * np.exp(-sharp * np.arange(STEPS) / STEPS)


def run_of(val_loss, seed=0, made: Curve | None = None, measured=None, seconds=10.0, trainable=1000) -> dict:
    made = made or curve(falling(3.0, 1.0), [2.0, 1.5, 1.2, 1.1, 1.05, 1.0], [2.0, 1.5, 1.2, 1.0, 0.9, 0.8])
    return {
        "run": f"r-{seed}", "seed": seed, "status": "completed" if val_loss is not None else "diverged", "error": None,
        "val_loss": val_loss, "train_loss": 1.0, "seconds": seconds, "trainable": trainable, "start": made.start,
        "end": made.end, "verdict": verdict(made)._asdict(), "curve": made.as_json(), "measured": measured,
    }  # fmt: skip


def results_of(name: str, losses_of, **options) -> dict:
    """The results file of an experiment, before anything follows; `losses_of` a setting and a seed gives the run."""
    plan = experiment_of(name).plan(seeds=3, **options)
    settings = [
        {**one._asdict(), "runs": [losses_of(n, one, seed) for seed in plan.seeds]}
        for n, one in enumerate(plan.settings)
    ]
    experiment = experiment_of(name)
    return {
        "experiment": name, "id": plan.id, "title": experiment.title, "question": experiment.question,
        "finished": 3 * len(settings), "runs": 3 * len(settings), "conclusion": None, "tables": [], "figures": [],
        "limits": list(experiment.limits), "command": " ".join(plan.command), "seeds": [0, 1, 2], "parts": plan.parts,
        "options": plan.options, "origin": ORIGIN, "settings": settings,
    }  # fmt: skip


def concluded(found: dict) -> dict:
    return found | experiment_of(found["experiment"]).findings(found)


def test_a_summary_by_hand():
    one = summary([1.0, 2.0, 3.0, None])
    half = t_quantile(2) / np.sqrt(3)  # the standard deviation is 1
    assert (one["n"], one["mean"]) == (3, 2.0) and one["interval"] == pytest.approx([2 - half, 2 + half])
    paired = difference([1.0, 5.0, None], [1.2, 5.1, 7.0])
    assert paired["n"] == 2 and paired["mean"] == pytest.approx(-0.15)
    assert not excludes_zero(summary([0.5])) and excludes_zero(summary([1.0, 1.1, 0.9]))
    assert not excludes_zero(summary([1.0, -1.0, 0.2]))


# The learning rate


def rates(losses: dict) -> dict:
    def run(n, one, seed):
        loss = losses[one["label"] if isinstance(one, dict) else one.label]
        return run_of(None if loss is None else loss + 0.01 * seed, seed)

    return concluded(results_of("learning_rate", run, base="org/model"))


def test_the_best_rate_and_what_is_within_its_noise():
    found = rates({"1e-05": 2.9, "3e-05": 2.8, "0.0001": 2.5, "0.0003": 2.0, "0.001": 1.5, "0.002": 1.5, "0.005": None})
    assert found["best"] == "0.001"
    assert "1.510" in found["conclusion"] and "3 of 21 runs diverged" in found["conclusion"]
    assert "may lie beyond" not in found["conclusion"]
    by_label = {one["label"]: one for one in found["rates"]}
    assert by_label["0.005"]["diverged"] == 3 and not by_label["0.005"]["as_good"]
    # every seed of the rate beside it has the same loss: an interval of nothing, which holds 0
    assert [one["label"] for one in found["rates"] if one["as_good"]] == ["0.001", "0.002"]


def test_a_rate_at_which_one_run_is_lost_is_not_the_best():
    def run(n, one, seed):
        if one.label == "0.005":
            return run_of(None if seed == 1 else 0.5, seed)
        rising = curve(np.linspace(3.0, 6.0, STEPS)) if one.label == "0.002" else None
        return run_of(2.0 - 0.1 * n, seed, rising)

    found = concluded(results_of("learning_rate", run, base="org/model"))
    assert found["best"] == "0.001" and "4 of 21 runs diverged" in found["conclusion"]


def test_a_best_rate_at_the_edge_is_said_to_be_one():
    losses = {"1e-05": 2.9, "3e-05": 2.8, "0.0001": 2.5, "0.0003": 2.0, "0.001": 1.5, "0.002": 1.2, "0.005": 1.0}
    assert "the highest rate tried, so a better one may lie beyond" in rates(losses)["conclusion"]


# The rank


def test_the_rank_has_two_lines_that_share_their_middle():
    def run(n, one, seed):
        rank, alpha = one.parts["model"]["rank"], one.parts["model"]["alpha"]
        kept = alpha == 2 * rank  # falls by 0.05 a doubling at constant ratio, by nothing at constant alpha
        loss = (1.0 - 0.05 * np.log2(rank / 4)) if kept else 0.9 + 0.001 * (-1) ** seed * (rank == 64)
        return run_of(loss + 0.2 * seed, seed, trainable=100 * rank)

    found = concluded(results_of("lora_rank", run))
    assert len(found["settings"]) == 9  # 5 + 5, and rank 16 at alpha 32 once
    ratio, alpha = found["series"].values()
    assert [one["rank"] for one in ratio] == [4, 8, 16, 32, 64] == [one["rank"] for one in alpha]
    assert [one["alpha"] for one in ratio] == [8, 16, 32, 64, 128] and {one["alpha"] for one in alpha} == {32}
    assert ratio[2]["losses"] == alpha[2]["losses"]
    said = found["conclusion"]
    assert "400 to 6,400 trained parameters" in said and "falls by 0.200 (change -0.200 to -0.200)" in said
    assert said.count("does not tell from nothing") == 1


# The loss curve


def four_curves() -> dict[str, Curve]:
    return {
        HEALTHY: curve(falling(3.0, 1.0), [2.0, 1.5, 1.2, 1.1, 1.05, 1.04], [2.0, 1.5, 1.2, 1.0, 0.9, 0.9]),
        OVER_FITTED: curve(falling(3.0, 0.1), [2.0, 1.5, 1.6, 1.7, 1.8, 1.9], [2.0, 1.2, 0.8, 0.5, 0.3, 0.1]),
        TOO_HIGH: curve([3.0, 2.9, *np.linspace(3, 9, STEPS - 2)], [8.0] * 6, [8.0] * 6),
        TOO_LOW: curve(np.linspace(3.0, 2.97, STEPS), [2.99, 2.98, 2.98, 2.97, 2.97, 2.97], [3.0] * 6),
    }


def test_the_rule_is_counted_against_what_was_made():
    curves = four_curves()

    def run(n, one, seed):
        wrong = one.label == TOO_LOW and seed == 2
        return run_of(1.0, seed, curves[HEALTHY if wrong else one.label])

    found = concluded(results_of("loss_curve", run))
    assert found["conclusion"].startswith("The rule gives 11 of 12 runs")
    assert "rate too low 2 of 3" in found["conclusion"] and "over-fitted 3 of 3" in found["conclusion"]


# Forgetting


def looked(drop: float, nats: float = 0.1, attention=None) -> dict:
    names = ("arithmetic", "reasoning", "knowledge", "code")
    suites = {n: {"kind": "exact", "count": 60, "values": [0.9, 0.9 - drop / 2, 0.9 - drop]} for n in names}
    suites["text"] = {"kind": "perplexity", "count": 20, "values": [0.5, 0.5 + nats / 2, 0.5 + nats]}
    task = {"count": 40, "before": 0.0, "after": 0.75}
    return {
        "level": "primer", "steps": [0, 30, 60], "suites": suites, "loss": 3.0, "task": task, "attention": attention,
    }  # fmt: skip


DROPS = {"plain": 0.6, "replay": 0.1, "low-rank": 0.6, "low-rate": 0.7}
ATTENTION = {"layers": [0, 1], "old": [[0.1, 0.2], [0.3, 0.4]], "new": [[0.2, 0.3], [0.4, 0.5]]}


def forgotten(drops: dict = DROPS) -> dict:
    def run(n, one, seed):
        scatter = 0.1 * (seed - 1)  # of the seeds, far more than of the pairs
        attention = ATTENTION if (n, seed) == (0, 0) else None
        noise = 0.02 * (-1) ** seed if one.key == "low-rank" else 0.0
        drop = drops[one.key] + scatter + noise
        return run_of(1.0 + 0.1 * (one.key == "replay"), seed, measured=looked(drop, attention=attention))

    return concluded(results_of("forgetting", run))


def test_what_is_forgotten_and_which_remedy_saves_some_of_it():
    found = forgotten()
    plain, replay, low_rank, low_rate = found["lines"]
    assert plain["forgotten_summary"]["mean"] == pytest.approx(0.6)
    assert plain["forgotten_summary"]["interval"] == pytest.approx([0.6 - 0.24841, 0.6 + 0.24841], abs=1e-4)
    assert replay["saved"]["mean"] == pytest.approx(0.5) and excludes_zero(replay["saved"])
    assert replay["gain_lost"]["mean"] == pytest.approx(0.1)
    assert not excludes_zero(low_rank["saved"]) and low_rate["saved"]["mean"] == pytest.approx(-0.1)
    assert plain["suites"]["text"]["each"] == pytest.approx([0.1] * 3)
    said = found["conclusion"]
    assert said.startswith("Forgetting is seen: right answers drop by 60.0 points (35.2 to 84.8)")
    helped, _, unshown = said.partition("Of the remedies")[2].partition("Not shown to help")
    assert "50% replay saves 50.0 points" in helped and "rank" not in helped
    assert "rank 2 (" in unshown and "1/4 of the rate (-10.0 points" in unshown


def test_a_setting_that_diverged_is_left_out_and_named():
    def run(n, one, seed):
        lost = one.key == "low-rate" and seed == 1
        return run_of(None if lost else 1.0, seed, measured=None if lost else looked(DROPS[one.key] + 0.01 * seed))

    found = concluded(results_of("forgetting", run))
    assert len(found["lines"]) == 3
    assert found["conclusion"].endswith("Left out, because a run of theirs diverged: 1/4 of the rate.")


def test_what_is_not_seen_is_not_claimed():
    found = forgotten(dict.fromkeys(DROPS, 0.01))
    assert found["conclusion"].startswith("Forgetting is not shown") and "No remedy" in found["conclusion"]


def test_another_base_has_no_replay_unless_a_source_is_named():
    keys = [one.key for one in forgetting.EXPERIMENT.plan(base="org/model", data="alpaca").settings]
    assert keys == ["plain", "low-rank", "low-rate"]
    named = forgetting.EXPERIMENT.plan(base="org/model", data="alpaca", replay="stories")
    assert named.settings[1].parts["data"]["replay"] == "stories" and named.options["replay"] == "stories"


# Reports


def results_for(name: str) -> dict:
    if name == "forgetting":
        return forgotten()
    curves = four_curves()
    if name == "loss_curve":
        return concluded(results_of(name, lambda n, one, seed: run_of(1.0, seed, curves[one.label])))
    return concluded(results_of(name, lambda n, one, seed: run_of(None if n == 4 else 1.0 + 0.1 * n, seed)))


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_made_from_the_results_file_alone(name, tmp_path):
    found = results_for(name)
    found["figures"] = save_figures(tmp_path, experiment_of(name).figures(found))
    write_json(tmp_path / "results.json", found)
    text = markdown(found)
    again = json.loads((tmp_path / "results.json").read_text())
    assert markdown(again) == text
    assert experiment_of(name).figures(again).keys() == {one["file"].removesuffix(".png") for one in found["figures"]}
    assert text.index(found["conclusion"]) < text.index("```") < text.index("## What it does not show")
    for part in (found["question"], "aaaaaaaaaaaa…", "bbbbbbbbbbbb…", "Student's t", "a processor", "torch 2.13"):
        assert part in text
    for one in found["figures"]:
        assert (tmp_path / one["file"]).read_bytes().startswith(b"\x89PNG") and f"({one['file']})" in text
    for row in (row for one in found["tables"] for row in one["rows"]):
        assert all(isinstance(cell, str) for cell in row)


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_what_is_told_of_an_experiment_is_what_its_runs_came_to(file):
    """Tables and sentences follow from the runs, and the report from the results."""
    found = read_json(file)
    assert found["finished"] == found["runs"] == sum(len(one["runs"]) for one in found["settings"])
    again = json.loads(json.dumps(found | experiment_of(found["experiment"]).findings(found)))
    assert again == found
    assert file.with_name("report.md").read_text() == markdown(found)
    for one in found["figures"]:
        assert file.with_name(one["file"]).is_file()


@pytest.mark.parametrize("module", [learning_rate, lora_rank, loss_curve, forgetting])
def test_the_command_is_that_of_the_plan(module):
    plan = module.EXPERIMENT.plan(seeds=2, given={"train": {"steps": 24}})
    assert plan.command == [
        "python", "-m", module.__name__, "--seeds", "2", "--train.steps", "24",
    ]  # fmt: skip
