"""Sweeps: what a file may say, statistics against tables and hand, and a real one that is killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from data.workspace import read_json
from hub.runs import Run, all_runs
from training.recipe import SHIPPED, read_recipe
from training.sweep import find_or_make, sweep_of
from training.sweep_file import parse_sweep, read_sweep
from training.sweep_plan import command_of, pairs
from training.sweep_plot import save_plot
from training.sweep_results import markdown, mean_and_interval, results, t_quantile
from training.sweep_time import Pace, plan

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(ROOT.glob("docs/experiments/*/sweep.yaml"))
BASE = {
    "data": {"corpus": "tales", "vocab_size": 300},
    "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "train": {"context": 16, "batch_size": 2, "compile": False, "threads": 1, "steps": 20, "checks": "skip"},
}
CONTENT = {
    "name": "widths",
    "question": "Is wide better than narrow?",
    "base": BASE,
    "grid": {"model.hidden_size": [16, 32], "model.hidden_act": ["relu", "silu"]},
    "seeds": 2,
    "metric": "val_loss",
    "threshold": {"better": {"model.hidden_size": 32}, "than": {"model.hidden_size": 16}, "by": 0.1},
}


def sweep_file(**changes) -> str:
    content = {key: value for key, value in (CONTENT | changes).items() if value is not ...}
    return yaml.safe_dump(content, sort_keys=False)


def finished(value: float, name: str = "val_loss") -> dict:
    return {"run": "r", "status": "completed", "error": None, "result": {name: value}}


# The file


def test_a_grid_is_the_product_of_its_fields(workspace):
    sweep = parse_sweep(sweep_file(), workspace)
    assert sweep.seeds == (0, 1)
    assert [sweep.label(point) for point in sweep.points] == [
        "hidden_size 16, hidden_act relu", "hidden_size 16, hidden_act silu",
        "hidden_size 32, hidden_act relu", "hidden_size 32, hidden_act silu",
    ]  # fmt: skip
    parts = sweep.parts(sweep.points[2], seed=7)
    assert parts["model"] == BASE["model"] | {"hidden_size": 32, "hidden_act": "relu"}
    assert parts["train"] == BASE["train"] | {"seed": 7}
    assert not workspace.root.joinpath("sweeps").exists()


def test_points_may_be_listed_and_reach_into_mappings(workspace):
    points = [{}, {"model.rope_parameters.rope_theta": 500.0}]
    sweep = parse_sweep(sweep_file(grid=..., points=points, threshold=...), workspace)
    assert sweep.parts(sweep.points[1], 0)["model"]["rope_parameters"] == {"rope_theta": 500.0}
    assert [sweep.label(point) for point in sweep.points] == ["as the base", "rope_theta 500.0"]


def test_a_base_may_be_a_recipe_by_its_name(workspace):
    text = sweep_file(base="shakespeare", grid={"train.learning_rate": [0.01, 0.02]}, threshold=...)
    assert parse_sweep(text, workspace).base == read_recipe(SHIPPED / "shakespeare.yaml")


def test_the_content_is_the_name(workspace):
    sweep = parse_sweep(sweep_file(), workspace)
    rewritten = json.dumps(dict(reversed(CONTENT.items())))  # JSON is YAML
    assert parse_sweep("# a remark\n" + rewritten, workspace) == sweep
    assert parse_sweep(sweep.to_yaml(), workspace).id == sweep.id
    changed = CONTENT["threshold"] | {"by": 0.2}
    others = [parse_sweep(sweep_file(**one), workspace) for one in ({"threshold": changed}, {"seeds": 3})]
    assert len({sweep.id, *(other.id for other in others)}) == 3
    assert {other.name for other in others} == {"widths"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gird": {}}, "'grid'"),
        ({"name": "../up"}, "sweep name"),
        ({"name": "n" * 31}, "30 characters"),
        ({"question": " "}, "question"),
        ({"points": [{}]}, "one of the two"),
        ({"grid": {"model.hidden_size": 16}}, "lists of values"),
        ({"grid": {"hidden_size": [16]}}, "no recipe field"),
        ({"grid": {"train.seed": [1, 2]}}, "seeds"),
        ({"grid": {"model.hidden_akt": ["relu"]}, "threshold": ...}, "hidden_act"),
        (
            {"grid": {"model.num_attention_heads": [2, 3]}, "threshold": ...},
            "point 'num_attention_heads 3' cannot",
        ),
        ({"grid": {"train.steps": list(range(1, 50)), "model.hidden_size": list(range(16, 60))}}, "2,156 points"),
        ({"grid": ..., "points": [{"train.steps": 5}, {"train.steps": 5}], "threshold": ...}, "the same"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": 0}, "seeds should be"),
        ({"metric": "val_los"}, "'val_loss'"),
        ({"base": "no-such-recipe"}, "no-such-recipe"),
        ({"threshold": {"better": {}, "than": {}, "by": 0}}, "fits no point"),
        ({"threshold": CONTENT["threshold"] | {"by": "much"}}, "least difference"),
        ({"threshold": CONTENT["threshold"] | {"than": {"model.hidden_size": 64}}}, "fits no point"),
    ],
)
def test_a_mistake_is_one_sentence(workspace, changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_sweep(sweep_file(**changes), workspace)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2", "- a list", "x: &a [1]\ny: *a", "[" * 100, "name: x\n" * 9000])
def test_what_is_no_sweep_at_all(workspace, text):
    with pytest.raises(ValueError, match="the sweep"):
        parse_sweep(text, workspace)


# What came of it


@pytest.mark.parametrize(
    ("df", "value"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_student_t_is_that_of_the_tables(df, value):
    assert t_quantile(df) == pytest.approx(value, abs=5e-5)


def test_mean_and_interval_by_hand():
    mean, (low, high) = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0  # the standard deviation is 1, so half the interval is 4.3027 / sqrt(3)
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert mean_and_interval([1.5]) == (1.5, None)
    assert mean_and_interval([]) == (None, None)


def verdict_of(workspace, wide: list, narrow: list, **changes) -> dict:
    """The verdict where runs of width 32 have `wide` and those of 16 `narrow`; None for one that failed."""
    sweep = parse_sweep(sweep_file(grid={"model.hidden_size": [16, 32]}, seeds=len(wide), **changes), workspace)
    failed = {"run": "r", "status": "failed", "error": "it broke", "result": {}}
    records = {
        (number, seed): failed if value is None else finished(value, sweep.metric)
        for number, values in enumerate((narrow, wide))
        for seed, value in enumerate(values)
    }
    return results(sweep, records)["verdict"]


def test_the_verdict_is_that_of_the_paired_differences(workspace):
    # the seeds scatter far more than the pairs: unpaired, nothing could be said
    found = verdict_of(workspace, wide=[1.0, 5.0, 9.0], narrow=[1.2, 5.21, 9.19])
    assert (found["verdict"], found["pairs"]) == ("confirmed", 3)
    assert found["difference"] == pytest.approx(0.2)
    assert found["interval"] == pytest.approx([0.2 - 0.024841, 0.2 + 0.024841], abs=1e-5)  # 4.3027 * 0.01 / sqrt(3)
    assert "val_loss of hidden_size 32 is lower than that of hidden_size 16 by 0.1 or more" in found["sentence"]
    assert verdict_of(workspace, [1.0, 5.0, 9.0], [1.05, 5.06, 9.04])["verdict"] == "refuted"
    assert verdict_of(workspace, [1.2, 5.21, 9.19], [1.0, 5.0, 9.0])["verdict"] == "refuted"
    assert verdict_of(workspace, [1.0, 5.0, 9.0], [1.0, 5.2, 9.3])["verdict"] == "undecided"


def test_more_is_better_where_the_metric_counts_successes(workspace):
    assert verdict_of(workspace, [9, 19, 29], [5, 15, 24], metric="accepted")["verdict"] == "confirmed"
    assert verdict_of(workspace, [5, 15, 24], [9, 19, 29], metric="accepted")["verdict"] == "refuted"


def test_nothing_is_decided_without_all_pairs(workspace):
    found = verdict_of(workspace, [1.0, 5.0, None], [2.0, 6.0, 10.0])
    assert (found["verdict"], found["missing"]) == ("undecided", 1)
    assert verdict_of(workspace, [1.0], [9.0])["verdict"] == "undecided"


def test_pairs_share_every_other_field(workspace):
    sweep = parse_sweep(sweep_file(), workspace)
    acts = [[point["model.hidden_act"] for point in pair] for pair in pairs(sweep.points, sweep.threshold)]
    assert acts == [["relu", "relu"], ["silu", "silu"]]


def test_the_table_and_the_plot_have_the_best_first(workspace, tmp_path):
    sweep = parse_sweep(sweep_file(grid={"model.hidden_act": ["relu", "gelu", "silu"]}, threshold=...), workspace)
    records = {(n, seed): finished(value + seed) for n, value in enumerate((2.0, 1.0)) for seed in (0, 1)}
    records[2, 0] = {"run": "r", "status": "failed", "error": "it diverged", "result": {}}
    found = results(sweep, records)
    rows = [line.split("|")[1].strip() for line in markdown(found).splitlines()[2:5]]
    assert rows == ["gelu", "relu", "silu"]
    assert "1.5000" in markdown(found) and "failed, waiting" in markdown(found)
    assert (found["finished"], found["runs"]) == (4, 6)
    save_plot(tmp_path, found)
    first = (tmp_path / "plot.svg").read_bytes()
    save_plot(tmp_path, found)
    assert (tmp_path / "plot.svg").read_bytes() == first and b"<svg" in first
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_left_follows_what_was_measured():
    pace = Pace([10.0, 30.0])
    whole = {(0, 0): 0.0, (1, 0): 0.0, (0, 1): 0.0, (1, 1): 0.5}
    assert pace.left(whole) == 10 + 30 + 10 + 15
    pace.finished((0, 0), 20.0)  # twice the estimate
    assert pace.left({(1, 0): 0.5}) == 30.0
    assert Pace([None, 1.0]).left({(0, 0): 0.0}) is None


def test_a_plan_makes_nothing(workspace):
    planned = plan(parse_sweep(sweep_file(), workspace), workspace)
    assert planned["runs"] == 8 and planned["seconds"] == pytest.approx(
        2 * sum(p["seconds"] for p in planned["points"])
    )
    assert planned["expected"] == "val_loss of hidden_size 32 is lower than that of hidden_size 16 by 0.1 or more"
    assert not workspace.root.exists() or not list(workspace.root.glob("sweeps/*"))


def test_a_folder_knows_its_sweep_and_each_point_its_command(workspace):
    sweep = parse_sweep(sweep_file(), workspace)
    job = find_or_make(sweep, workspace)
    assert find_or_make(sweep, workspace).path == job.path and job.id == sweep.id
    assert sweep_of(job, workspace) == sweep
    assert (job.status, job.module()) == ("queued", "training.sweep")
    assert job.resume_command().startswith(f"python -m training.sweep --resume {sweep.id} --workspace")
    words = command_of(sweep, sweep.points[0], 1)
    assert words[:5] == ["python", "-m", "training.pretrain", "--run-name", "widths-16-relu-s1"]
    assert words[words.index("--train.seed") + 1] == "1"
    assert all_runs(workspace) == []


# Real processes


def begin(workspace, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "training.sweep", *words, "--json", "--workspace", str(workspace.root)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def until(condition, process: subprocess.Popen, seconds: float = 240):
    """What the condition returns when it is true; fails where the process ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"nothing came in {seconds} s")


def run_at(workspace, name: str, step: int) -> Run | None:
    """The run of that name, once it has a checkpoint of that step or a later one."""
    runs = [run for run in all_runs(workspace) if run.name == name]
    return runs[0] if runs and (runs[0].newest_checkpoint_name() or "") >= f"step-{step:06d}" else None


@pytest.mark.slow
def test_killed_in_the_middle_it_finishes_without_repeating_a_point(workspace, milk, tmp_path):
    train = {"save_every": 20, "eval_every": 500, "sample_every": 500, "diagnose_every": 500, "eval_sequences": 2}
    base = BASE | {"data": {"corpus": str(milk), "tokenizer": "char"}, "train": BASE["train"] | train | {"steps": 400}}
    file = tmp_path / "sweep.yaml"
    points = [
        {"train.steps": 20},
        {"train.learning_rate": 1e30, "train.optimizer": "adamw"},
        {"train.warmup_steps": 30},
    ]
    content = {"name": "killed", "question": "Does it go on?", "base": base, "points": points, "seeds": [0, 1]}
    file.write_text(yaml.safe_dump(content))

    sweep = begin(workspace, str(file))
    names = [f"killed-{word}-s{seed}" for seed in (0, 1) for word in ("20", "1e-30-adamw", "30")]
    at_work = until(lambda: run_at(workspace, names[2], 40), sweep)
    os.killpg(sweep.pid, signal.SIGKILL)  # all of it: the sweep, its server of processes, the run
    sweep.communicate()
    assert at_work.status == "interrupted"
    before = {run.name: run.info() for run in all_runs(workspace)}
    assert {name: info["status"] for name, info in before.items()}[names[0]] == "completed"
    assert before[names[1]]["status"] == "failed" and "not a number" in before[names[1]]["error"]

    sweep = begin(workspace, str(file))
    other = until(lambda: run_at(workspace, names[5], 40), sweep)
    sweep.kill()  # the sweep alone: the run goes on, being a process of its own
    sweep.wait()
    assert other.status == "running"
    process = other.info()["process"]["pid"]

    sweep = begin(workspace, "--resume", "killed")
    output, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 1, errors  # a point failed
    found = json.loads(output)
    after = {run.name: run.info() for run in all_runs(workspace)}
    assert sorted(after) == sorted(names) and len(all_runs(workspace)) == len(names)
    for name in (names[0], names[3]):
        assert after[name]["status"] == "completed"
    for part in ("id", "started_at", "ended_at", "process"):  # finished before it was killed, and not touched since
        assert after[names[0]][part] == before[names[0]][part]
    assert after[names[2]]["id"] == before[names[2]]["id"] and after[names[2]]["status"] == "completed"
    log = (workspace.root / "runs" / after[names[2]]["id"] / "output.log").read_text()
    assert "resuming" in log and "its beginning" not in log
    assert after[names[5]]["status"] == "completed" and after[names[5]]["process"]["pid"] == process
    assert (found["finished"], found["runs"]) == (4, 6)
    assert [one["status"] for one in found["points"][1]["runs"]] == ["failed", "failed"]

    job = Run(next((workspace.root / "sweeps").iterdir()))
    assert job.status == "failed" and "2 of 6 runs" in job.info()["error"]
    assert read_json(job.path / "results.json") == found
    assert len(read_json(job.path / "points.json")) == 6
    assert {path.name for path in job.path.iterdir()} >= {"sweep.yaml", "table.md", "plot.png", "plot.svg"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda path: path.parent.name)
def test_what_is_told_of_an_experiment_is_what_its_file_asked(file, workspace):
    """The digits of the sweep's id are those of its content: nobody moved the threshold after the results."""
    sweep, found = read_sweep(file, workspace), read_json(file.with_name("results.json"))
    assert found["sweep"] == sweep.id and found["finished"] == found["runs"]
    assert file.with_name("table.md").read_text() == markdown(found)
    again = {
        (number, run["seed"]): {**run, "result": {sweep.metric: run["value"]}}
        for number, point in enumerate(found["points"])
        for run in point["runs"]
    }
    assert results(sweep, again) == found
    assert found["verdict"]["sentence"] in file.with_name("README.md").read_text()
