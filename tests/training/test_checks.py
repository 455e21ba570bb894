"""Checks before a run: each planted fault turns its own check red and no other, and a healthy run is left as it was."""

import json
import types

import numpy as np
import pytest
import torch

from data.workspace import Workspace
from hub.runs import Run
from training import checks, keeper, loop, preflight, setup, state
from training.checks import CHECKS, GREEN, RED, YELLOW, run_checks
from training.estimate import estimate
from training.pace import measure_pace
from training.recipe import build_recipe
from training.trial import Trial, undisturbed

HEALTHY = dict.fromkeys(CHECKS, GREEN)
MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TRAIN = {
    "steps": 4, "context": 48, "batch_size": 4, "threads": 1, "compile": False, "log_every": 2, "device": "cpu",
    "eval_sequences": 2, "warmup_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("checks"))


@pytest.fixture
def make(workspace, milk):
    """A job of a small recipe, with everything about it decided."""

    def make(model: dict | None = None, fresh: bool = True, **train) -> Trial:
        parts = {"data": {"corpus": str(milk), "tokenizer": "char"}, "model": {**MODEL, **(model or {})}}
        recipe = build_recipe({**parts, "train": {**TRAIN, **train}})
        recipe.train, accelerator = setup.set_machine(recipe.train)
        data = setup.make_data(recipe, workspace, accelerator)
        recipe = setup.resolve(recipe, data)
        job = setup.make_job(recipe, data, None, setup.make_model(recipe, data), accelerator)
        return Trial(job, estimate(recipe, workspace), fresh)

    return make


def found(trial: Trial) -> dict[str, str]:
    return {check.name: check.status for check in run_checks(trial)}


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"train": {"optimizer": "adamw", "learning_rate": 1e-5}},
        {"model": {"hidden_dropout": 0.2, "attention_dropout": 0.1}, "train": {"label_smoothing": 0.1, "z_loss": 1e-4}},
        {"model": {"attention": "linear"}, "train": {"precision": "bf16"}},
    ],
    ids=["muon", "adamw, slow", "dropout, smoothing", "linear, bf16"],
)
def test_a_healthy_run_is_green_all_over(make, kind):
    if kind.get("train", {}).get("precision"):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
    try:
        assert found(make(kind.get("model"), **kind.get("train", {}))) == HEALTHY
    finally:
        if kind.get("train", {}).get("precision"):
            AcceleratorState._reset_state(reset_partial_state=True)


def test_nothing_of_the_run_is_changed_by_having_been_checked(make):
    trial = make({"hidden_dropout": 0.2})
    model = trial.job.model
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    mode, threads, torch_state, numpy_state = (
        model.training, torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].copy()
    )  # fmt: skip
    run_checks(trial)
    measure_pace(trial)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert (model.training, torch.get_num_threads()) == (mode, threads)
    assert torch.equal(torch_state, torch.get_rng_state()) and np.array_equal(numpy_state, np.random.get_state()[1])


def test_random_states_are_put_back_after_a_failure_too():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), undisturbed():
        torch.rand(3)
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())


# Planted faults: (what breaks, the check that has to see it)


def sees_the_future(trial, monkeypatch):
    """Each position is told a little of the next token's embedding."""
    honest = torch.nn.Embedding.forward
    monkeypatch.setattr(
        torch.nn.Embedding, "forward", lambda self, ids: (made := honest(self, ids)) + 0.1 * made.roll(-1, dims=-2)
    )


def labels_not_shifted(trial, monkeypatch):
    honest = loop.slices
    monkeypatch.setattr(
        loop, "slices", lambda *given: (part | {"labels": part["input_ids"]} for part in honest(*given))
    )


def labels_shifted_twice(trial, monkeypatch):
    def doubled(model, batch, scored, smoothing):  # the library shifts `labels` once more
        return model(**batch, use_cache=False).loss

    monkeypatch.setattr(loop, "loss_of", doubled)


def weights_too_large(trial, monkeypatch):
    with torch.no_grad():
        trial.job.model.get_output_embeddings().weight.mul_(30)


def nothing_learns(trial, monkeypatch):
    """As where a graph is cut: the loss is right, and its gradient nothing."""
    honest = loop.loss_of

    def cut(*given):
        loss = honest(*given)
        return loss.detach() + 0 * loss

    monkeypatch.setattr(loop, "loss_of", cut)


def momentum_is_lost(trial, monkeypatch):
    capture = state.capture

    def forgetful(*given):
        captured = capture(*given)
        for kept in captured["optimizer"]["state"].values():
            kept.update({name: torch.zeros_like(value) for name, value in kept.items()})
        return captured

    monkeypatch.setattr(state, "capture", forgetful)


def text_is_lost(trial, monkeypatch):
    tokenizer = trial.job.tokenizer
    lossy = types.SimpleNamespace(decode=lambda ids, **kwargs: tokenizer.decode(ids, **kwargs).replace("a", ""))
    trial.job.tokenizer = lossy


def memory_is_short(trial, monkeypatch):
    object.__setattr__(trial.cost, "memory_free", trial.cost.memory_total - 1)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (sees_the_future, "no look ahead"),
        (labels_not_shifted, "labels shifted once"),
        (labels_shifted_twice, "labels shifted once"),
        (weights_too_large, "loss at the start"),
        (nothing_learns, "one batch can be learned"),
        (momentum_is_lost, "resumes exactly"),
        (text_is_lost, "tokenizer keeps the text"),
        (memory_is_short, "fits the memory"),
    ],
)
def test_a_planted_fault_turns_its_own_check_red_and_no_other(make, monkeypatch, fault, name):
    trial = make()
    fault(trial, monkeypatch)
    if fault is text_is_lost:  # its other parts are a real tokenizer's
        monkeypatch.setattr(keeper, "write_model", lambda *given: None)
        monkeypatch.setitem(CHECKS, "resumes exactly", lambda trial: checks.Verdict(GREEN, "", ""))
    done = run_checks(trial)
    assert [check.name for check in done if check.status == RED] == [name]
    red = next(check for check in done if check.status == RED)
    assert red.advice and red.seen and "\n" not in preflight.line(red)
    if fault is memory_is_short:  # the others would need that memory
        assert len(done) == 2


def test_weights_that_were_trained_may_begin_below_ln_v(make):
    trial = make(fresh=False)
    trial.job.model = trial.memorised[0]
    assert found(trial)["loss at the start"] == GREEN
    trial = make(fresh=True)
    trial.job.model = trial.memorised[0]
    assert found(trial)["loss at the start"] == RED  # a fresh one may not


def test_a_tokenizer_that_changes_only_case_is_a_warning(make):
    trial = make()
    tokenizer = trial.job.tokenizer
    trial.job.tokenizer = types.SimpleNamespace(decode=lambda ids, **kwargs: tokenizer.decode(ids, **kwargs).upper())
    assert checks.round_trip(trial).status == YELLOW


# From the command line, in processes of their own


def recipe_flags(milk, **train) -> list[str]:
    parts = {"data": {"corpus": str(milk), "tokenizer": "char"}, "model": MODEL, "train": {**TRAIN, **train}}
    flags = [[f"--{part}.{key}", json.dumps(value)] for part, keys in parts.items() for key, value in keys.items()]
    return [word for flag in flags for word in flag]


def test_the_checks_alone_make_no_run(pretrain, milk, tmp_path):
    code, output = pretrain(tmp_path, *recipe_flags(milk), "--check", "--json")
    assert code == 0, output
    said = json.loads(output[output.index("{\n") :])
    assert {check["name"]: check["status"] for check in said["checks"]} == HEALTHY
    assert said["estimate"]["memory"] > 0 and said["estimate"]["cpu_seconds"] > 0
    assert not list(tmp_path.glob("runs/*/run.json"))

    code, output = pretrain(
        tmp_path, *recipe_flags(milk, learning_rate=1e-9), "--model.initializer_range", "5", "--check"
    )
    assert code == 2 and "red     loss at the start" in output, output


def test_red_stops_a_run_unless_told_otherwise(pretrain, milk, tmp_path, assert_same_bits):
    spoilt = (*recipe_flags(milk), "--model.initializer_range", "5")
    code, output = pretrain(tmp_path, *spoilt, checked=True)
    assert code == 2 and "--train.checks warn" in output and "Traceback" not in output
    (stopped,) = tmp_path.glob("runs/*/run.json")
    record = json.loads(stopped.read_text())
    assert record["status"] == "failed" and record["progress"].get("step") is None
    assert RED in {check["status"] for check in record["checks"]}

    code, output = pretrain(tmp_path, *spoilt, "--train.checks", "warn", checked=True)
    assert code == 0 and "loss at the start" in output, output


def test_a_checked_run_has_the_bits_of_one_that_was_not_and_tells_how_good_its_estimate_was(
    pretrain, milk, tmp_path, assert_same_bits
):
    flags = (*recipe_flags(milk), "--model.hidden_dropout", "0.1")
    for name, order in (("checked", {"checked": True}), ("unchecked", {})):
        code, output = pretrain(tmp_path / name, *flags, **order)
        assert code == 0, output
    runs = [Run.open(Workspace(tmp_path / name), "latest") for name in ("checked", "unchecked")]
    assert_same_bits(*(run.path for run in runs))
    record, bare = (run.info() for run in runs)
    assert {check["status"] for check in record["checks"]} == {GREEN} and "checks" not in bare
    estimated = record["estimate"]
    for name in ("memory", "seconds", "cpu_seconds"):
        assert estimated["ratio"][name] == pytest.approx(estimated["measured"][name] / estimated[name], abs=1e-3)
    log = (runs[0].path / "train.log").read_text()
    assert "check: green" in log and "measured against the estimate" in log
    assert "measured against the estimate" in preflight.judged(record) and preflight.judged(bare) == ""
