"""The Fine-tune tab: what its handlers answer, without a browser; what may be named, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from data.access import Access
from finetune import draft, tab_after, tab_experiments, tab_form
from finetune.form import form_fields, values_of
from hub.metrics import Metrics
from hub.process import this_process
from hub.runs import Run

SKIP = gr.skip()
LINE = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}
EXAMPLES = "".join(json.dumps(LINE) + "\n" for _ in range(20))


@pytest.fixture
def access(workspace) -> Access:
    folder = workspace.root / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return Access(workspace)


def typed(**changes: object) -> list[object]:
    """What the form's fields hold, the defaults but for some; `train__steps="5"` is the field train.steps."""
    values = values_of({}) | {name.replace("__", "."): value for name, value in changes.items()}
    return list(values.values())


def a_run(workspace, losses: list[float], status: str = "completed", **fields) -> Run:
    """A run folder as fine-tuning leaves it, with as many rows of metrics as losses."""
    command = ["python", "-m", "finetune.qlora"]
    run = Run.create(workspace, "made", "finetune", command, "model: {base: small, rank: 4}\n", 0, {})
    metrics = Metrics(run.path)
    for step, loss in enumerate(losses, start=1):
        metrics.add(step, train_loss=loss, learning_rate=1e-3, tokens=step * 32)
    metrics.close()
    process = {"process": this_process()} if status == "running" else {}
    run.update(status=status, **process, **fields)
    return run


def skipped(values: list) -> bool:
    return all(value == SKIP for value in values)


# The form


def test_a_form_that_nobody_touched_neither_scolds_nor_promises(access):
    problems, *others = tab_form.looked(access, "", *typed())
    assert problems == "" and set(others) == {""}
    assert not (access.workspace.root / "runs").exists()


def test_the_whole_recipe_and_its_command(access):
    problems, *_, texts = tab_form.looked(access, "mine", *typed(model__base="owner/name", train__steps="5"))
    assert problems == "" and "rank: 16" in texts and "schedule: cosine" in texts
    assert "python -m finetune.qlora --base owner/name --run-name mine --train.steps 5 --workspace" in texts


def test_a_mistake_is_told_below_the_form_and_in_its_own_section(access):
    problems, *by_group, texts = tab_form.looked(
        access, "", *typed(model__base="owner/name", train__beta2="2", model__dropout="none at all")
    )
    said = dict(zip(tab_form.folded_fields(), by_group, strict=True))
    assert "train.beta2" in problems and "model.dropout" in problems and texts == ""
    assert "train.beta2" in said["train", "optimizer"] and "model.dropout" in said["model", ""]
    assert sum(bool(one) for one in by_group) == 2


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"model__base": "/etc"}, "", "not in the workspace"),
        ({"model__base": "../outside"}, "", "not in the workspace"),
        ({"data__source": "/etc/passwd"}, "", "not in the workspace"),
        ({"data__source": "hf:/etc/passwd"}, "", "not in the workspace"),
        ({"data__source": "missing/../../x"}, "", "not in the workspace"),
        ({"data__replay": "/etc/passwd"}, "", "not in the workspace"),
        ({"train__steps": "5", "train__epochs": "1"}, "", "exclude each other"),
        ({"train__batch_size": "10", "train__accumulate": "4"}, "", "micro-batches"),
        ({}, "no/such:name", "run name"),
    ],
)
def test_what_only_all_fields_together_show_is_told_too(access, changes, name, words):
    problems, *_, texts = tab_form.looked(access, name, *typed(**{"model__base": "owner/name"} | changes))
    assert words in problems and problems.count("<p") == 1 and texts == ""


def test_a_plain_word_is_no_folder_of_the_server(access, tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    monkeypatch.chdir(tmp_path)
    for part in ({"model": {"base": "secret"}}, {"data": {"source": "secret"}}):
        with pytest.raises(ValueError, match="no file or folder"):
            draft.permitted(access, part)
    known = {"model": {"base": "models/small"}, "data": {"source": "hf:owner/name", "replay": "tales"}}
    permitted = draft.permitted(access, known)
    assert permitted["model"]["base"] == str(access.workspace.root.resolve() / "models" / "small")
    assert permitted["data"] == {"source": "hf:owner/name", "replay": "tales"}


def test_a_file_of_ones_own_is_kept_where_runs_find_it(access, tmp_path):
    names = []
    for folder in ("one", "two"):  # the same content is one file
        (tmp_path / folder).mkdir()
        given = tmp_path / folder / "my greetings!.jsonl"
        given.write_text(EXAMPLES)
        source, file = tab_form.handed_in(access, str(given))
        names.append(source.value)
        assert file is None and not given.exists()
    assert names[0] == names[1] and names[0] in draft.sources(access.workspace)
    kept = draft.permitted(access, {"data": {"source": names[0]}})["data"]["source"]
    assert Path(kept).read_text() == EXAMPLES and Path(kept).is_relative_to(access.workspace.root.resolve())
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.docx is no \.jsonl or \.json file"):
        tab_form.handed_in(access, str(tmp_path / "notes.docx"))


def test_the_form_begins_as_a_run_did_and_as_no_other_kind(access):
    run = a_run(access.workspace, [])
    assert f"run:{run.id}" in [value for _, value in draft.beginnings(access.workspace)]
    assert tab_form.begun_as(access, f"run:{run.id}") == typed(model__base="small", model__rank="4")
    assert tab_form.begun_as(access, "defaults") == typed()
    other = Run.create(access.workspace, "text", "pretrain", ["python"], "train: {steps: 4}\n", 0, {})
    for name in (f"run:{other.id}", "run:../../etc", "/etc/passwd"):
        with pytest.raises(ValueError):
            tab_form.begun_as(access, name)


def test_a_page_that_only_shows_starts_keeps_and_merges_nothing(access, tmp_path):
    run, shown = a_run(access.workspace, []), Access(access.workspace, read_only=True)
    given = tmp_path / "mine.jsonl"
    given.write_text(EXAMPLES)
    calls = (
        lambda: tab_form.started_run(shown, "", *typed(model__base="models/small")),
        lambda: tab_form.handed_in(shown, str(given)),
        lambda: tab_after.merge_run(shown, run.id),
        lambda: tab_experiments.started(shown, "loss_curve", "", "", "1"),
        lambda: tab_experiments.asked_to(shown, "stop", "latest"),
    )
    for call in calls:
        with pytest.raises(ValueError, match="read-only"):
            call()
    assert given.exists() and len(list((access.workspace.root / "runs").glob("[!.]*"))) == 1
    assert not (access.workspace.root / "experiments").exists()


# What comes after


def test_a_curve_is_named_and_what_has_no_adapter_offers_nothing(access):
    run = a_run(access.workspace, [3.0 / (1 + step / 4) for step in range(40)])
    stamp, said, commands, *buttons = tab_after.looked(access, run.id, ())
    assert "The curve is healthy: the training loss fell" in said and commands == ""
    assert [button.interactive for button in buttons] == [False] * 3
    assert skipped(tab_after.looked(access, run.id, stamp))
    (run.path / "adapter_config.json").write_text('{"target_modules": ["q_proj"]}')
    stamp, said, commands, *buttons = tab_after.looked(access, run.id, stamp)
    assert [button.interactive for button in buttons] == [True] * 3
    assert f"python -m finetune.merge {run.id} --workspace" in commands and "q_proj" in commands
    read_only = tab_after.looked(Access(access.workspace, read_only=True), run.id, ())
    assert [button.interactive for button in read_only[3:]] == [True, True, False]


def test_a_curve_that_does_not_settle_is_a_warning(access):
    run = a_run(access.workspace, [2.0 + 0.1 * step for step in range(20)], "running")
    _, said, *_ = tab_after.looked(access, run.id, ())
    assert "The curve so far is rate too high" in said and "lab-warning" in said


def test_a_run_leads_to_other_tabs_with_its_base_beside_it(access):
    from app import beside_base

    run = a_run(access.workspace, [])
    with pytest.raises(ValueError, match="no base"):
        beside_base(access, "generate", run.id)
    run.update(inputs={"base": {"id": "owner/name", "revision": None, "sha256": None}})
    tabs, first, second = beside_base(access, "generate", run.id)
    assert (tabs.selected, first, second) == ("generate", run.id, "owner/name")


# Experiments


@pytest.fixture
def job(access):
    """An experiment's folder, as its process makes it."""
    from finetune.experiment import experiment_of, find_or_make

    return find_or_make(experiment_of("loss_curve").plan("models/small", None, 1), access.workspace)


def result_of(job: Run, **changes) -> None:
    found = {
        "title": "The <loss> curve", "question": "What?", "finished": 4, "runs": 4, "conclusion": "It is <so>.",
        "tables": [{"title": "Four", "columns": ["", "loss"], "rows": [["healthy", "1.234"]], "note": "by <seeds>"}],
        "figures": [{"file": "curve.png", "caption": "Curves"}, {"file": "../../secret.png", "caption": "no"}],
        "limits": ["One model."], "command": "python -m finetune.loss_curve",
    }  # fmt: skip
    (job.path / "results.json").write_text(json.dumps(found | changes))


def test_an_experiment_is_listed_and_shown_with_its_report(access, job):
    (job.path / "curve.png").write_bytes(b"\x89PNG")
    (access.workspace.root / "secret.png").write_bytes(b"secret")
    result_of(job)
    drawn, lined = tab_experiments.listed(access)
    assert f'data-experiment="{job.id}"' in drawn and "4 of 4" in drawn and "It is &lt;so&gt;." in drawn
    assert all(value == SKIP for value in tab_experiments.listed(access, lined))
    stamp, drawn, stop, resume = tab_experiments.looked(access, job.id, {})
    assert "1.234" in drawn and "by &lt;seeds&gt;" in drawn and "One model." in drawn
    assert drawn.count("data:image/png;base64,") == 1  # the other is no file of the experiment's folder
    assert (stop.interactive, resume.interactive) == (True, False)  # it waits to be begun
    assert skipped(tab_experiments.looked(access, job.id, json.loads(json.dumps(stamp))))


def test_an_experiment_that_has_begun_says_how_far_it_is(access, job):
    assert "Nothing has been measured yet" in tab_experiments.looked(access, job.id, {})[1]
    result_of(job, conclusion=None, finished=1)
    progress = {"step": 1, "steps": 4, "eta_seconds": 600.0}
    job.update(status="running", process=this_process(), progress=progress)
    drawn = tab_experiments.looked(access, job.id, {})[1]
    assert "1 of 4 runs are finished" in drawn and "10 minutes left" in drawn


def test_an_experiment_is_started_with_names_that_were_checked(access, monkeypatch):
    launched = []
    monkeypatch.setattr("finetune.experiment.launch", lambda job, workspace: launched.append(job))
    chosen, said = tab_experiments.started(access, "learning_rate", "models/small", "stories", "2")
    assert chosen in said and [job.id for job in launched] == [chosen]
    wrong = [("no_such", "", "", "3"), ("loss_curve", "/etc", "", "3"), ("loss_curve", "", "/etc/passwd", "3")]
    wrong += [("loss_curve", "", "", seeds) for seeds in ("-1", "0", "many")]
    for arguments in wrong:
        with pytest.raises(ValueError):
            tab_experiments.started(access, *arguments)
    assert len(launched) == 1


@pytest.mark.parametrize("name", ["../runs", "/etc", "no-such-experiment", "%2e%2e"])
def test_only_experiments_can_be_opened(access, job, name):
    with pytest.raises(ValueError):
        tab_experiments.looked(access, name, {})


def test_clicks_say_what_was_chosen():
    assert tab_experiments.opened(SimpleNamespace(experiment="loss-curve-123456")) == "loss-curve-123456"


def test_every_field_has_one_component_and_the_rest_is_folded():
    shown = [key for row in tab_form.IN_SIGHT for key in row]
    folded = [field.key for group in tab_form.folded_fields().values() for field in group]
    assert sorted([*shown, *folded]) == sorted(form_fields())
