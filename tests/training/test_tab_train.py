"""The Train tab: what its handlers answer, without a browser; one run is really started, paused, stopped and forked."""

import math
import time

import gradio as gr
import pytest

from data.access import Access
from hub.checkpoints import checkpoints
from hub.metrics import Metrics, append_sample
from hub.process import this_process
from hub.runs import LIVE, Run
from training import draft, saved, tab, tab_form, tab_watch
from training.form import form_fields, values_of, values_to_parts

SKIP = gr.skip()
TINY = {
    "data": {"vocab_size": 300},
    "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "train": {
        "steps": 4000, "batch_size": 2, "context": 16, "compile": False, "threads": 1, "log_every": 5,
        "eval_sequences": 2, "save_every": 1000, "eval_every": 1000, "sample_every": 1000, "diagnose_every": 1000,
    },
}  # fmt: skip


@pytest.fixture
def access(workspace, milk) -> Access:
    return Access(workspace, folders=(milk.parent,))


def typed(**changes: object) -> list[object]:
    """What the form's fields hold, the defaults but for some; `train__steps="5"` is the field train.steps."""
    values = values_of({}) | {name.replace("__", "."): value for name, value in changes.items()}
    return list(values.values())


def a_run(workspace, status: str = "completed", steps: int = 40, **fields) -> Run:
    """A run folder as training leaves it, with `steps` rows of metrics and two samples."""
    run = Run.create(
        workspace, "made", "pretrain", ["python", "-m", "training.pretrain"], "train: {steps: 40}\n", 0, {}
    )
    metrics = Metrics(run.path)
    for step in range(1, steps + 1):
        evaluated = {"val_loss": 2.5} if step % 20 == 0 else {}
        values = {"grad_norm": 1.0, "tokens_sec": 900.0, "learning_rate": 0.01, "tokens": step * 32}
        metrics.add(step, train_loss=3 / math.sqrt(step), **values, **evaluated)
    metrics.close()
    for step in (20, 40):
        append_sample(run.path, step=step, text=f"text of step {step} <b>")
    run.log("something happened")
    progress = {"step": steps, "steps": 2 * steps, "tokens_per_second": 900.0, "eta_seconds": 200.0}
    process = {"process": this_process()} if status in LIVE else {}
    run.update(status=status, progress=progress, **process, **fields)
    return run


def shown(value: object) -> str:
    assert not (isinstance(value, dict) and value.get("__type__") == "update"), "it was skipped"
    return str(value)


# The form


def test_the_first_look_says_what_the_first_run_costs_and_how_to_do_it_in_a_terminal(access):
    problems, *others, cost, texts = tab_form.preview(access, "", "", *typed())
    assert problems == "" and set(others) == {""}
    assert "1,049,856" in cost and "680" in cost and "2.79M" in cost
    assert "python -m training.pretrain --workspace" in texts and "warmup_steps: 20" in texts
    assert not access.workspace.root.exists()


def test_a_mistake_is_told_below_the_form_and_in_its_own_section(access):
    problems, *others, cost, texts = tab_form.preview(
        access, "", "", *typed(train__steps="many", train__beta2="2", model__hidden_size="0")
    )
    assert [problems.count(name) for name in ("train.steps", "train.beta2", "model.hidden_size")] == [1, 1, 1]
    by_group = dict(zip(tab_form.folded_fields(), others, strict=True))
    assert "train.beta2" in by_group["train", "optimizer"] and "model.hidden_size" in by_group["model", "size"]
    assert [group for group, said in by_group.items() if said] == [("model", "size"), ("train", "optimizer")]
    assert cost == "" and texts == ""


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"train__batch_size": "10", "train__accumulate": "4"}, "", "micro-batches"),
        ({"train__steps": "5", "train__epochs": "1"}, "", "exclude each other"),
        ({"model__num_attention_heads": "3"}, "", "num_attention_heads=3"),
        ({"model__others": "model_type: lama"}, "", "&#x27;llama&#x27;"),
        ({"model__num_hidden_layers": "1000000000"}, "", "num_hidden_layers"),
        ({"data__corpus": "talez"}, "", "&#x27;tales&#x27;"),
        ({"data__corpus": "/etc/passwd"}, "", "not in the workspace"),
        ({"data__corpus": "../../etc"}, "", "not in the workspace"),
        ({"data__tokenizer": "/etc"}, "", "not in the workspace"),
        ({}, "no/such:name", "run name"),
    ],
)
def test_what_only_all_fields_together_show_is_told_too(access, changes, name, words):
    problems, *_ = tab_form.preview(access, "", name, *typed(**changes))
    assert words in problems and problems.count("<p") == 1


def test_a_corpus_may_be_a_path_that_is_allowed_and_no_other(access, milk, tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "secret.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    assert draft.permitted(access, {"data": {"corpus": str(milk)}}) == {"data": {"corpus": str(milk.resolve())}}
    for name in ("texts", "texts/secret.txt", str(tmp_path / "texts")):
        with pytest.raises(ValueError, match=r"no corpus|no file or folder|not in the workspace"):
            draft.permitted(access, {"data": {"corpus": name}})
    with pytest.raises(ValueError, match="no file or folder"):
        draft.permitted(access, {"data": {"tokenizer": "texts"}})
    assert draft.permitted(access, {"data": {"tokenizer": "owner/name"}}) == {"data": {"tokenizer": "owner/name"}}


def test_a_page_that_only_shows_starts_and_keeps_nothing(workspace):
    access = Access(workspace, read_only=True)
    assert tab_form.preview(access, "", "", *typed())[0] == ""
    run = a_run(workspace, "running")
    calls = (
        lambda: tab_form.started_run(access, "", "", *typed()),
        lambda: tab_form.kept(access, "defaults", "mine", *typed()),
        lambda: draft.start_run(access, {}),
        lambda: tab_watch.controlled(access, "pause", run.id),
    )
    for call in calls:
        with pytest.raises(ValueError, match="read-only"):
            call()
    assert list((workspace.root / "runs").glob("[!.]*")) == [run.path]
    assert not (workspace.root / "recipes").exists()


@pytest.mark.parametrize(
    ("parts", "name", "words"),
    [
        ({"train": {"steps": 0}}, None, "train.steps"),
        ({"model": {"num_hidden_layers": 10**9}}, None, "num_hidden_layers"),
        ({"data": {"corpus": "talez"}}, None, "tales"),
        ({"data": {"corpus": 5}}, None, "data.corpus"),
        ({}, "latest", "latest"),
        ({}, "a b", "run name"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_run(access, parts, name, words):
    with pytest.raises(ValueError, match=words):
        draft.start_run(access, parts, name)
    assert not list(access.workspace.root.glob("runs/*/run.json"))


def test_recipes_are_kept_compared_and_begun_with(access):
    saved.save(access.workspace, "mine", {"train": {"steps": 5}})
    begun = tab_form.begun_as(access, "mine@v1")
    assert begun[:2] == ["", ""] and begun[2:] == typed(train__steps="5")
    start_from, said = tab_form.kept(access, "mine@v1", "mine", *typed(train__steps="6", data__corpus="verdict"))
    assert start_from.value == "mine@v2" and "mine@v2, made from mine@v1" in said
    table = tab_form.compared(access, "mine@v1", *typed(train__steps="6", data__corpus="verdict"))
    assert "train.steps" in table and "data.corpus" in table and "left out" in table
    assert "the same" in tab_form.compared(access, "mine@v2", *typed(train__steps="6", data__corpus="verdict"))
    for name in ("", "../mine", "shakespeare"):
        with pytest.raises(ValueError):
            tab_form.kept(access, "defaults", name, *typed())
    with pytest.raises(ValueError, match="there is no recipe"):
        tab_form.begun_as(access, "/etc/passwd")


def test_the_form_begins_as_a_run_did(access):
    run = a_run(access.workspace)
    assert tab_form.begun_as(access, f"run:{run.id}")[2:] == typed(train__steps="40")
    assert f"run:{run.id}" in [value for _, value in tab_form.beginnings(access.workspace)]
    with pytest.raises(ValueError, match="not in the workspace"):
        tab_form.begun_as(access, "run:../../etc")


def test_fields_left_empty_say_what_the_preset_has():
    names = [field.name for field in form_fields().values() if tab_form.in_preset(field)]
    nano = dict(zip(names, tab_form.as_preset("nano"), strict=True))
    assert nano["hidden_size"]["placeholder"] == "256"
    assert nano["tie_word_embeddings"]["choices"][0] == ("as the preset: true", "")
    assert "value" not in nano["hidden_size"]


# Watching


def test_a_look_shows_everything_and_the_next_one_only_what_changed(access):
    run = a_run(access.workspace, "running")
    seen, head, *parts = tab_watch.looked(access, run.id, False, {})
    buttons, (loss, small, samples, log) = parts[:5], parts[5:]
    assert run.id in head and "running" in head and "step 40 of 80" in head and "3 minutes left" in head
    assert [button.interactive for button in buttons] == [True, False, True, True, False]
    assert "validation" in loss and "Gradient norm" in small and "something happened" in log
    assert samples.index("text of step 40") < samples.index("text of step 20") and "&lt;b&gt;" in samples
    assert tab_watch.looked(access, run.id, False, seen) == [SKIP] * 11

    append_sample(run.path, step=60, text="a new one")
    again = tab_watch.looked(access, run.id, False, seen)
    assert "a new one" in shown(again[9])
    assert [place for place, value in enumerate(again) if value != SKIP] == [0, 9]
    log_scale = tab_watch.looked(access, run.id, True, again[0])
    assert [place for place, value in enumerate(log_scale) if value != SKIP] == [0, 7, 8]


@pytest.mark.parametrize(
    ("status", "able"),
    [
        ("queued", [False, False, True, False]),
        ("running", [True, False, True, True]),
        ("paused", [False, True, True, True]),
        ("stopping", [False, False, False, False]),
        ("completed", [False, False, False, False]),
        ("failed", [False, True, False, False]),
        ("interrupted", [False, True, False, False]),
    ],
)
def test_buttons_are_those_that_make_sense(access, status, able):
    run = a_run(access.workspace, status)
    (run.path / "checkpoints").mkdir()
    buttons = tab_watch.looked(access, run.id, False, {})[2:7]
    assert [button.interactive for button in buttons] == [*able, True]
    assert buttons[2].value == "Stop"


def test_what_the_process_says_is_shown_not_what_was_written(access):
    run = a_run(access.workspace, "running")
    run.update(process={"started": 1.0})  # another process has its number by now
    head = tab_watch.looked(access, run.id, False, {})[1]
    assert "interrupted" in head and "Resume goes on from its beginning" in head
    assert f"python -m training.pretrain --resume {run.id}" in head


def test_why_a_run_failed_and_what_to_do(access):
    run = a_run(access.workspace, "failed", error="the loss is not a number at step 7; try <less>")
    head = tab_watch.looked(access, run.id, False, {})[1]
    assert "not a number at step 7; try &lt;less&gt;" in head and "Resume goes on" in head


def test_a_stop_that_takes_long_may_be_made_short(access, monkeypatch):
    run = a_run(access.workspace, "stopping")
    seen = tab_watch.looked(access, run.id, False, {})[0]
    assert tab_watch.looked(access, run.id, False, seen)[4] == SKIP
    later = time.time() + 6
    monkeypatch.setattr(tab_watch.time, "time", lambda: later)
    stop = tab_watch.looked(access, run.id, False, seen)[4]
    assert (stop.value, stop.interactive) == ("Stop at once", True)


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (None, "Nothing has been trained"),
        ("no-such-run", "no run"),
        ("../../etc", "not in the workspace"),
        ("x" * 999, "characters"),
    ],
)
def test_what_cannot_be_watched_is_a_sentence(access, ref, words):
    run = a_run(access.workspace, "running")
    seen = tab_watch.looked(access, run.id, False, {})[0]
    other = tab_watch.looked(access, ref, False, seen)
    assert words in other[1] and not any(button.interactive for button in other[2:7])
    assert other[7:] == [""] * 4  # nothing of the run before stays
    assert tab_watch.looked(access, ref, False, other[0]) == [SKIP] * 11
    assert words in tab_watch.looked(access, ref, False, {})[1]


def test_a_broken_folder_breaks_only_its_own_part(access):
    run = a_run(access.workspace)
    (run.path / "metrics.jsonl").write_text("not json\n")
    looked = tab_watch.looked(access, run.id, False, {})
    assert "cannot be shown" in looked[7] and "text of step 40" in looked[9]
    (run.path / "run.json").write_text("{")
    assert "cannot be read" in tab_watch.looked(access, run.id, False, {})[1]


def test_what_trains_is_offered_before_what_waits_and_what_ended(access):
    ended, waits = a_run(access.workspace), a_run(access.workspace, "queued", queued_at="2020-01-01T00:00:00.000+00:00")
    trains = a_run(access.workspace, "running")
    again = a_run(access.workspace)
    assert tab_watch.choices(access) == [trains.id, waits.id, again.id, ended.id]
    assert tab_watch.arrived(access).value == trains.id
    table, lined = tab_watch.queued(access)
    assert trains.id in table and f"{waits.id} is about to begin" in table and ended.id not in table
    assert tab_watch.queued(access, lined) == (SKIP, SKIP)


def test_a_look_at_ten_thousand_steps_costs_little(access):
    run = a_run(access.workspace, "running", steps=10_000)
    seen = tab_watch.looked(access, run.id, False, {})[0]
    costs, idle = [], []
    for step in range(10_001, 10_006):  # each time a few rows more, so that all curves are drawn anew
        metrics = Metrics(run.path)
        metrics.add(step, train_loss=1.0, grad_norm=1.0, tokens_sec=900.0, learning_rate=0.01)
        metrics.close()
        begin = time.thread_time()
        seen = tab_watch.looked(access, run.id, False, seen)[0]
        costs.append(time.thread_time() - begin)
        begin = time.thread_time()
        assert tab_watch.looked(access, run.id, False, seen) == [SKIP] * 11
        idle.append(time.thread_time() - begin)
    assert min(costs) < 0.05 and min(idle) < 0.01


# The whole tab


def test_the_tab_is_built_without_writing_and_shows_programs_three_endpoints(access):
    with gr.Blocks() as demo, gr.Tab("Train"):
        built = tab.build(access)
    assert not access.workspace.root.exists()
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert public == {"start_training", "control_run", "run_status"}
    ids = {block.elem_id for block in demo.blocks.values()}
    names = "corpus tokenizer steps name start watch status loss pause resume stop save fork samples log queue"
    assert {f"train-{name}" for name in names.split()} <= ids
    assert built.corpus.elem_id == "train-corpus" and built.watched.elem_id == "train-watch"


def until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return met


def endpoint(access: Access, name: str):
    with gr.Blocks() as demo:
        tab.build_api(access)
    return next(fn.fn for fn in demo.fns.values() if fn.api_name == name)


@pytest.mark.slow
def test_a_run_is_started_watched_paused_stopped_and_forked(access, milk, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    start, control, status = (endpoint(access, name) for name in ("start_training", "control_run", "run_status"))
    recipe = {**TINY, "data": {**TINY["data"], "corpus": str(milk)}}
    run_id = start(recipe, "first")["run"]
    try:
        assert status(run_id)["status"] in ("queued", "running")
        assert until(lambda: (status(run_id)["progress"].get("step") or 0) > 0), status(run_id)
        seen, head, *_, loss, _, _, _ = tab_watch.looked(access, run_id, False, {})
        assert "running" in head and "data-chart" in loss
        assert until(lambda: tab_watch.looked(access, run_id, False, seen)[7] != SKIP)  # the curve moves

        assert control(run_id, "pause")["run"] == run_id
        assert until(lambda: status(run_id)["status"] == "paused")
        waiting = start(recipe, "second")["run"]
        assert until(lambda: run_id in (status(waiting)["waiting_for"] or ""))
        assert control(waiting, "stop")["status"] in ("stopping", "interrupted")
        assert until(lambda: status(waiting)["status"] == "interrupted")
        control(run_id, "resume")
        assert until(lambda: status(run_id)["status"] == "running")
        control(run_id, "stop")
        assert until(lambda: status(run_id)["status"] == "interrupted")
        stopped_at = status(run_id)["progress"]["step"]
        with pytest.raises(gr.Error, match="cannot pause"):
            control(run_id, "pause")

        # the form, filled with its recipe, changes the number of steps and goes on from its checkpoint
        chosen, filled, *values = tab_form.forked(access, run_id, "")
        assert filled == run_id and chosen.value == f"{run_id}@step-{stopped_at:06d}"
        assert tab_form.forked(access, chosen.value, run_id)[2:] == [SKIP] * len(form_fields())
        form = dict(zip(form_fields(), values, strict=True)) | {"train.steps": str(stopped_at + 5)}
        assert values_to_parts(form, values_of(draft.parent_parts(access, chosen.value))) == {
            "train": {"steps": stopped_at + 5}
        }
        fork = tab_form.started_run(access, chosen.value, "", *form.values())
        assert until(lambda: status(fork)["status"] == "completed"), status(fork)
        assert status(fork)["progress"]["step"] == stopped_at + 5
        child = Run.open(access.workspace, fork)
        assert child.info()["inputs"]["parent"]["run"] == run_id
        assert checkpoints(child)[-1].name == f"step-{stopped_at + 5:06d}"
    finally:
        for run in list(access.workspace.root.glob("runs/*/run.json")):
            if (left := Run(run.parent)).status in LIVE:
                tab_watch.ask(access, left.id, "stop", now=True)
