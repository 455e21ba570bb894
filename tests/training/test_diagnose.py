"""The diagnose panel: a planted fault of each kind is found in a real training, and a healthy run raises none."""

import dataclasses
import json
import time
from dataclasses import dataclass

import gradio as gr
import pytest
import torch
from torch import nn

from data.access import Access
from data.snapshots import write_snapshot
from data.tales import tales
from data.workspace import Workspace
from hub.findings import read_findings
from hub.metrics import Metrics
from hub.runs import Run
from modeling.attention import SoftmaxAttention
from page.findings import findings as draw_findings
from training import draft, setup, tab_diagnose
from training.diagnose import RULES, changed_run, chosen, conclude, diagnose, finding, main, told
from training.findings import Case, Rule, Seen
from training.findings_probe import probe
from training.launch import create
from training.loop import train
from training.recipe import build_recipe, merge

STORIES = 1200
SMALL = {
    "data": {"corpus": "stories", "tokenizer": "bpe", "vocab_size": 300},
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "train": {
        "steps": 200, "batch_size": 12, "context": 48, "threads": 1, "compile": False, "device": "cpu",
        "optimizer": "adamw", "learning_rate": 1e-2, "log_every": 20, "diagnose_every": 50, "eval_every": 100,
        "eval_sequences": 32, "sample_every": 200, "save_every": 200,
    },
}  # fmt: skip


@dataclass
class Trained:
    run: Run
    model: nn.Module
    workspace: Workspace

    def found(self) -> set[str]:
        return {one.name for one in conclude(self.run, self.model)}


def write_stories(workspace: Workspace, name: str, copied: int = 0) -> None:
    """A corpus that knows its entropy; the first `copied` stories of validation stand in training too."""
    told = list(tales(STORIES + 200, seed=1))
    parts = {"train": told[:STORIES], "validation": told[STORIES:]}
    parts["train"] += parts["validation"][:copied]
    source = [{"name": "data/tales.py", "bytes": 0, "sha256": "0" * 64}]
    write_snapshot(
        workspace.room("corpora") / name, {split: [one.text for one in stories] for split, stories in parts.items()},
        {"kind": "generated", "seed": 1, "fraction": 0.1, "tails": 0}, source, name, "Apache-2.0",
        {split: [one.log_prob for one in stories] for split, stories in parts.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("diagnose") / "workspace")
    write_stories(workspace, "stories")
    write_stories(workspace, "copied", copied=200)
    return workspace


def trained(workspace: Workspace, parts: dict | None = None, plant=lambda model: None) -> Trained:
    """A run of the real loop in this process; `plant` spoils its model first."""
    recipe = build_recipe(merge(SMALL, parts or {}))
    recipe.train, accelerator = setup.set_machine(recipe.train)
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    plant(model)
    run = setup.make_run(recipe, data, workspace, "planted", ["python", "-m", "training.pretrain"], accelerator)
    run.start_process()
    status = train(setup.make_job(recipe, data, run, model, accelerator))
    run.finish(status)
    return Trained(run, model, workspace)


@pytest.fixture(scope="module")
def healthy(place) -> Trained:
    return trained(place)


def test_a_healthy_run_raises_nothing(healthy):
    assert healthy.found() == set()
    assert told([], Case(healthy.run).step) == f"nothing found: {len(RULES)} rules, 200 steps"


def test_a_healthy_run_with_muon_raises_nothing(place):
    muon = {"optimizer": "muon", "learning_rate": 0.02, "embedding_learning_rate": 0.02, "beta1": 0.8}
    assert trained(place, {"train": muon}).found() == set()


@pytest.mark.parametrize(
    ("optimizer", "rate", "found"),
    [
        ("adamw", 1e-1, "rate_too_high"),
        ("adamw", 1e-3, "rate_too_low"),
        ("muon", 0.2, "rate_too_high"),
        ("muon", 0.002, "rate_too_low"),
    ],
)
def test_a_learning_rate_ten_times_off_is_found(place, optimizer, rate, found):
    rates = {"optimizer": optimizer, "learning_rate": rate}
    if optimizer == "muon":
        rates |= {"embedding_learning_rate": rate, "beta1": 0.8}
    spoilt = trained(place, {"train": rates})
    assert spoilt.found() & {"rate_too_high", "rate_too_low"} == {found}
    (one,) = (one for one in diagnose(spoilt.run) if one.name == found)
    factor = one.change["train"]["learning_rate"] / rate
    assert factor >= 3 if found == "rate_too_low" else factor <= 1 / 3


def test_a_dead_layer_is_found_and_named(place):
    def plant(model):
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.bias.fill_(-100.0)

    spoilt = trained(place, {"model": {"mlp_bias": True, "hidden_act": "relu"}, "train": {"steps": 80}}, plant)
    found = {one.name: one for one in conclude(spoilt.run, spoilt.model)}
    assert found.keys() == {"dead_layer"}
    assert found["dead_layer"].severity == "problem" and "layers.1." in found["dead_layer"].seen
    assert found["dead_layer"].change == {"model": {"hidden_act": "gelu"}}


def test_a_label_that_is_not_shifted_is_found(place):
    def plant(model):
        whole = model.forward

        def forward(input_ids=None, labels=None, shift_labels=None, **kwargs):
            wrong = {} if labels is None else {"labels": input_ids, "shift_labels": input_ids}
            return whole(input_ids=input_ids, **wrong, **kwargs)

        model.forward = forward

    spoilt = trained(place, {"train": {"steps": 120}}, plant)
    assert [one.name for one in diagnose(spoilt.run)] == ["labels_not_shifted"], "from the metrics alone"
    del spoilt.model.forward
    found = {one.name: one for one in conclude(spoilt.run)}  # the checkpoint shows it too, in another process
    assert "the token it has just read" in found["labels_not_shifted"].seen
    assert found.keys() == {"labels_not_shifted"}


def test_a_leak_of_the_future_is_found(place, monkeypatch):
    whole = SoftmaxAttention.attend

    def attend(self, q, k, v, rotation=None, attention_mask=None, past_key_values=None, **kwargs):
        self.is_causal = False  # sees everything, where no mask says otherwise
        open_mask = q.new_zeros(1, 1, q.shape[2], k.shape[2]) if past_key_values is None else attention_mask
        return whole(self, q, k, v, rotation, open_mask, past_key_values, **kwargs)

    monkeypatch.setattr(SoftmaxAttention, "attend", attend)
    spoilt = trained(place)
    found = {one.name for one in conclude(spoilt.run)}  # the newest checkpoint, opened with the code that leaks
    assert "future_leak" in found
    assert found <= {"future_leak", "below_floor"}, "the loss may already be lower than is possible"


def test_a_duplicated_validation_set_is_found(place, healthy):
    spoilt = trained(place, {"data": {"corpus": "copied"}, "train": {"steps": 60}})
    found = {one.name: one for one in conclude(spoilt.run, spoilt.model)}
    assert found.keys() == {"duplicated_validation"}
    assert found["duplicated_validation"].seen.startswith("100.0% of the validation documents")
    assert "data.corpora show copied --statistics" in found["duplicated_validation"].command


def test_the_probe_tells_what_a_model_predicts():
    """A model that is nothing but a table: what it predicts, and what it sees, is known."""

    class Table(nn.Module):
        def __init__(self, offset, sees_all=False):
            super().__init__()
            self.offset, self.sees_all, self.config = offset, sees_all, type("C", (), {"vocab_size": 20})
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, use_cache):
            logits = nn.functional.one_hot((input_ids + self.offset) % 20, 20) * 9.0
            extra = logits.sum(1, keepdim=True) if self.sees_all else 0.0
            return type("Output", (), {"logits": logits + extra})

    counting = (torch.arange(24) % 20)[None].numpy()  # 0 1 2 …: the token k ahead is the one at hand plus k
    for offset in range(3):
        seen = probe(Table(offset), counting)
        assert seen["learnt_offset"] == offset and not seen["leak"]
    assert probe(Table(1, sees_all=True), counting)["leak"]


def test_findings_are_kept_and_read(healthy, place):
    judged = read_findings(healthy.run.path)
    assert judged.step == 200 and judged.findings == [] and judged.probe["leak"] is False
    assert judged.overlap["exact"] == pytest.approx(judged.overlap["expected"], abs=0.01)


def a_run(workspace: Workspace, rows: list[dict], **train) -> Run:
    """A run folder with metrics that were made up, of a recipe of 400 steps."""
    recipe = build_recipe({"data": {"corpus": "tales"}, "train": {"steps": 400, "optimizer": "adamw", **train}})
    run = Run.create(workspace, "made", "pretrain", ["python"], recipe.to_yaml(), 0, {})
    metrics = Metrics(run.path)
    for step, row in enumerate(rows, start=1):
        metrics.add(step, **row)
    metrics.close()
    (run.path / "config.json").write_text(json.dumps({"hidden_size": 64, "vocab_size": 300, "qk_norm": False}))
    run.update(status="completed", model={"parameters_non_embedding": 20_000_000})
    return run


def falling(count: int = 400, **more) -> list[dict]:
    """A healthy loss; of `more`, a list has a value for each step, and anything else is that of the last."""
    rows = [{"train_loss": 2.0 + 3.0 * step**-0.5} for step in range(1, count + 1)]
    for name, values in more.items():
        if isinstance(values, list):
            for row, value in zip(rows, values, strict=True):
                row |= {} if value is None else {name: value}
        else:
            rows[-1][name] = values
    return rows


MADE_UP = {
    "not_finite": {"train_loss": [3.0] * 399 + [float("nan")]},
    "rate_too_high": {"train_loss": [5.0 - 0.01 * i for i in range(200)] + [3.0 + 0.005 * i for i in range(200)]},
    "spikes": {"spike": [3.5 if i in (100, 200, 300) else None for i in range(400)]},
    "always_clipped": {"clipped": [1.0] * 400, "grad_norm": [4.0] * 400},
    "noisy_batch": {"noise_scale": 32 * 128 * 200.0},
    "collapsed_attention": {"attention_entropy/layers.0": [None] * 399 + [[0.01, 0.02]]},
    "growing_attention": {"max_attention_logit/layers.0": [None] * 99 + [[9.0]] + [None] * 299 + [[150.0]]},
    "nothing_learnt": {"train_loss": [5.7] * 400},
    "overfitting": {
        "val_loss": [3.0 + 0.1 * abs(i - 199) / 100 if i % 100 == 99 else None for i in range(400)],
        "eval_train_loss": [3.0 - 0.001 * i if i % 100 == 99 else None for i in range(400)],
    },
    "below_floor": {"excess": -0.5, "excess_se": 0.1, "val_loss": 1.0},
    "waits_for_data": {"data_wait": [0.4] * 400},
    "idle_processor": {"mfu": [0.02] * 400},
}


@pytest.mark.parametrize("name", MADE_UP)
def test_a_rule_sees_what_it_is_for_and_nothing_else_does(workspace, name):
    run = a_run(workspace, falling(**MADE_UP[name]))
    (one,) = diagnose(run)
    assert one.name == name and one.seen and one.threshold and one.advice and one.source
    assert one.evidence and one.title in told([one], 400)


def test_a_loss_that_only_falls_is_no_finding(workspace):
    assert diagnose(a_run(workspace, falling())) == []
    assert diagnose(a_run(workspace, [])) == [], "a run that has just begun"


def test_every_rule_has_been_seen_to_find_something():
    planted = {"rate_too_low", "dead_layer", "labels_not_shifted", "future_leak", "duplicated_validation"}
    assert {rule.name for rule in RULES} == planted | MADE_UP.keys()


def discard(run: Run) -> None:
    run.finish("interrupted")  # it has no process yet, and one is waited for
    run.delete()


def test_a_change_becomes_a_command_and_a_run(healthy, place):
    """Where weights are worth going on from it is a fork, else a new run with the parent's recipe and the change."""
    run = healthy.run
    case = Case(run)
    rule = Rule("made_up", "Made up", "for a test", lambda case: None)
    seen = Seen("warning", "a", "b", "c", change={"train": {"max_grad_norm": 2.0}})
    fork = finding(case, rule, seen)
    assert fork.fork == f"{run.id}@step-000200" and f"--fork {run.id}@step-000200" in fork.command
    assert fork.change == {"train": {"max_grad_norm": 2.0, "steps": 400}}, "there are to be steps to take"
    parts, ref = changed_run(run, fork)
    child = create(parts, place, None, ref)
    assert child.info()["inputs"]["parent"]["run"] == run.id
    assert "max_grad_norm: 2.0" in (child.path / "recipe.yaml").read_text()
    discard(child)

    anew = finding(case, rule, dataclasses.replace(seen, change={"model": {"hidden_act": "gelu"}}, fresh=True))
    assert anew.fork is None and f"--recipe {run.path}/recipe.yaml --model.hidden_act gelu" in anew.command
    parts, ref = changed_run(run, anew)
    child = create(parts, place, run.name, ref)
    assert "hidden_act: gelu" in (child.path / "recipe.yaml").read_text() and "parent" not in child.info()["inputs"]
    discard(child)

    with pytest.raises(ValueError, match="no recipe mends this"):
        changed_run(run, finding(case, rule, dataclasses.replace(seen, change=None)))
    with pytest.raises(ValueError, match="numbered 1 to 1"):
        chosen([fork], 2)


def test_a_look_takes_milliseconds(workspace):
    rows = falling(4000, clipped=[0.0] * 4000, data_wait=[0.01] * 4000, mfu=[0.3] * 4000)
    run = a_run(workspace, rows)
    diagnose(run)
    begin = time.process_time()
    for _ in range(10):
        diagnose(run)
    assert (time.process_time() - begin) / 10 < 0.02, "twice what a page is allowed, for a busy machine"


# The page


def test_the_tab_draws_what_was_found_once_and_escapes_it(workspace):
    run = a_run(workspace, falling(**MADE_UP["not_finite"]))
    access = Access(workspace)
    drawn, stamp = tab_diagnose.looked(access, run.id, ())
    assert "The loss is not a number" in drawn and 'data-finding="not_finite"' in drawn and "at step" in drawn
    assert tab_diagnose.looked(access, run.id, stamp) == (gr.skip(), gr.skip())
    assert "data-act" not in tab_diagnose.looked(Access(workspace, read_only=True), run.id, ())[0]
    assert "<b>" not in draw_findings([dataclasses.replace(diagnose(run)[0], seen="<b>")], run.id)
    assert "no run" in tab_diagnose.looked(access, "nobody", ())[0]


def test_the_button_starts_the_change_and_no_other(workspace, monkeypatch):
    run, begun = a_run(workspace, falling(**MADE_UP["not_finite"])), []
    monkeypatch.setattr(draft, "start_run", lambda access, *what: begun.append(what) or run)
    access = Access(workspace)
    assert tab_diagnose.changed(access, run.id, "not_finite") == run.id
    ((parts, name, fork),) = begun
    assert parts["train"]["learning_rate"] == 3e-4 and (name, fork) == ("made", None), "it has no checkpoint to fork"
    with pytest.raises(ValueError, match="no longer shows"):
        tab_diagnose.changed(access, run.id, "overfitting")
    with pytest.raises(ValueError, match="read-only"):
        tab_diagnose.changed(Access(workspace, read_only=True), run.id, "not_finite")


def test_the_command_line(workspace, capsys, monkeypatch):
    run = a_run(workspace, falling(**MADE_UP["always_clipped"]))
    flags = ["training.diagnose", run.id, "--workspace", str(workspace.root)]
    monkeypatch.setattr("sys.argv", flags)
    assert main() == 0
    said = capsys.readouterr().out
    assert said.startswith("1. warning: The gradient is always clipped") and "--train.max_grad_norm 8.0" in said
    monkeypatch.setattr("sys.argv", [*flags, "--json"])
    assert main() == 0
    (one,) = json.loads(capsys.readouterr().out)["findings"]
    assert one["change"] == {"train": {"max_grad_norm": 8.0}}
    monkeypatch.setattr("sys.argv", [*flags, "--fork", "2"])
    with pytest.raises(ValueError, match="there is no finding 2"):
        main()
