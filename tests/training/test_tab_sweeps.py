"""The page's sweeps: what its handlers answer, without a browser; what a typed file may name."""

import json
from types import SimpleNamespace

import gradio as gr
import pytest
import yaml

from data.access import Access
from hub.process import this_process
from hub.runs import Run
from training import tab_sweeps as tab
from training.sweep import collect, find_or_make
from training.sweep_file import parse_sweep

SKIP = gr.skip()
SMALL = {
    "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "train": {"steps": 5, "context": 16, "batch_size": 2},
}
CONTENT = {
    "name": "acts",
    "question": "Which is <b>better</b>?",
    "base": SMALL,
    "grid": {"model.hidden_act": ["relu", "silu"]},
    "seeds": 2,
    "threshold": {"better": {"model.hidden_act": "silu"}, "than": {"model.hidden_act": "relu"}, "by": 0.1},
}


def text(**changes) -> str:
    return yaml.safe_dump(CONTENT | changes, sort_keys=False)


@pytest.fixture
def access(workspace) -> Access:
    return Access(workspace)


@pytest.fixture
def job(access) -> Run:
    """A sweep of four runs, all but one finished."""
    sweep = parse_sweep(text(), access.workspace)
    job = find_or_make(sweep, access.workspace)
    runs = {}
    for number, values in enumerate(([2.0, 2.1], [1.5, None])):
        for seed, value in enumerate(values):
            run = runs[number, seed] = Run.create(access.workspace, "acts", "pretrain", ["python"], "", seed, {})
            if value is None:
                run.update(status="failed", error="it broke <here>")
            else:
                run.update(status="completed", result={"val_loss": value})
    collect(job, sweep, runs)
    return job


def skipped(value: object) -> bool:
    return value == SKIP


def test_the_list_is_drawn_once_and_again_when_something_changed(access, job):
    drawn, lined = tab.listed(access)
    assert f'data-sweep="{job.id}"' in drawn and "3 of 4" in drawn and "undecided" in drawn
    assert all(map(skipped, tab.listed(access, lined)))
    job.update(status="running", process=this_process())
    drawn, _ = tab.listed(access, lined)
    assert "running" in drawn


def test_nothing_is_said_kindly_and_nothing_is_made(access):
    assert "There are no sweeps yet" in tab.listed(access)[0]
    assert all(map(skipped, tab.looked(access, "", {})))
    assert not access.workspace.root.exists()


def test_one_sweep_with_its_points_its_verdict_and_its_file(access, job):
    job.update(status="failed", error="1 of 4 runs did not finish")
    stamp, drawn, stop, resume = tab.looked(access, job.id, {})
    assert "Which is &lt;b&gt;better&lt;/b&gt;?" in drawn and "<b>better" not in drawn
    assert "2.0500" in drawn and "1.5000" in drawn and "it broke &lt;here&gt;" in drawn
    assert "Undecided: val_loss of silu is lower than that of relu by 0.1 or more" in drawn
    assert f"python -m training.sweep --resume {job.id}" in drawn and "1 of 4 runs did not finish" in drawn
    assert "hidden_act" in drawn  # the file
    assert (stop.interactive, resume.interactive) == (False, True)
    assert all(map(skipped, tab.looked(access, job.id, json.loads(json.dumps(stamp)))))


def test_a_sweep_that_has_begun_has_no_figures_yet(access):
    job = find_or_make(parse_sweep(text(), access.workspace), access.workspace)
    job.update(status="running", process=this_process(), progress={"step": 1, "steps": 4, "eta_seconds": 600.0})
    _, drawn, stop, resume = tab.looked(access, job.id, {})
    assert "Nothing has been measured yet" in drawn and "1 of 4 runs" in drawn and "10 minutes left" in drawn
    assert (stop.interactive, resume.interactive) == (True, False)


def test_what_is_broken_in_a_folder_is_a_row_like_any_other(access, job):
    (job.path / "results.json").write_text("{")
    assert job.id in tab.listed(access)[0]
    (job.path / "run.json").write_text("{")
    assert "unreadable" in tab.listed(access)[0]


def test_what_the_page_starts_is_checked_first(access, monkeypatch):
    launched = []
    monkeypatch.setattr("training.sweep.launch", lambda job, workspace: launched.append(job.id))
    sweep_id, said = tab.started(access, text())
    assert launched == [sweep_id] and sweep_id in said
    assert tab.started(access, "# the same\n" + text())[0] == sweep_id
    assert "2 points x 2 seeds = 4 runs" in tab.previewed(access, text())
    with pytest.raises(ValueError, match="read-only"):
        tab.started(Access(access.workspace, read_only=True), text())
    with pytest.raises(ValueError, match="read-only"):
        tab.stopped(Access(access.workspace, read_only=True), sweep_id)
    assert len(launched) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"base": "/etc/hostname"},
        {"base": "../recipe.yaml"},
        {"base": {"data": {"corpus": "/etc/hostname"}}},
        {"base": SMALL, "grid": {"data.corpus": ["tales", "/etc/hostname"]}, "threshold": None},
        {"base": SMALL, "grid": {"data.tokenizer": ["char", "/etc"]}, "threshold": None},
    ],
)
def test_a_typed_file_names_nothing_outside_the_workspace(access, changes):
    with pytest.raises(ValueError, match=r"workspace|recipe|folder"):
        tab.previewed(access, text(**changes))


def test_sizes_that_no_machine_holds_are_refused_before_a_process_is(access, monkeypatch):
    monkeypatch.setattr("training.sweep.launch", lambda *_: pytest.fail("it was launched"))
    huge = SMALL | {"model": {"hidden_size": 2**40, "num_attention_heads": 2}}
    with pytest.raises(ValueError, match="hidden_size"):
        tab.started(access, text(base=huge))


@pytest.mark.parametrize("name", ["../runs", "/etc", "no-such-sweep", "%2e%2e"])
def test_only_sweeps_can_be_opened(access, job, name):
    with pytest.raises(ValueError):
        tab.looked(access, name, {})


def test_clicks_say_what_was_chosen():
    assert tab.opened(SimpleNamespace(sweep="acts-123456")) == "acts-123456"
    assert tab.run_of(SimpleNamespace(run="acts-relu-s0-123456")) == "acts-relu-s0-123456"
