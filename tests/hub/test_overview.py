"""The list of runs: every folder is a row, broken ones too; searched, ordered, compared."""

import pytest

from data.access import Access
from hub import overview
from hub.metrics import Metrics
from hub.overview import Row, compare, differing, find, records, rows, select

RECIPE = "data:\n  corpus: tales\ntrain:\n  steps: 500\n  learning_rate: {}\n"


def ids(many) -> list[str]:
    return [row.id for row in many]


def test_a_row_says_what_the_record_says(run, workspace):
    run.start_process()
    run.update(
        model={"parameters": 1000}, progress={"step": 5, "steps": 500}, result={"val_loss": 1.5, "excess": 0.25},
        note="a note",
    )  # fmt: skip
    (row,) = rows(workspace)
    assert row == Row(
        id=run.id, name="tales", kind="pretrain", status="running", corpus="tales", parameters=1000, step=5, steps=500,
        val_loss=1.5, excess=0.25, created_at=run.info()["created_at"], note="a note",
    )  # fmt: skip


def test_status_is_what_the_process_says_though_no_file_changed(run, workspace):
    run.start_process()
    assert rows(workspace)[0].status == "running"
    run.update(process={"started": 1.0})  # a process that is no more
    assert rows(workspace)[0].status == "interrupted"


def test_a_run_without_a_result_shows_its_last_evaluation(run, workspace):
    metrics = Metrics(run.path)
    for step, loss in ((1, 4.0), (2, 3.0), (3, None)):
        metrics.add(step, train_loss=2.0, **({"val_loss": loss} if loss else {}))
    metrics.close()
    assert rows(workspace)[0].val_loss == 3.0
    run.update(result={"val_loss": 2.5})
    assert rows(workspace)[0].val_loss == 2.5


@pytest.mark.parametrize(
    "spoilt", ["", "{", "[]", "null", '{"id": "x"}', "\x00", '{"created_at": "yesterday", "status": "completed"}']
)
def test_a_broken_record_is_a_row_that_says_so(make_run, workspace, spoilt):
    good, broken = make_run("good"), make_run("broken")
    (broken.path / "run.json").write_text(spoilt)
    assert ids(rows(workspace)) == [good.id, broken.id]
    assert rows(workspace)[1] == Row(broken.id, "broken", problem="its run.json cannot be read")
    assert [info for _, info in records(workspace)][1] is None


def test_values_of_the_wrong_kind_count_as_unknown(make_run, workspace):
    odd, fine = make_run("odd"), make_run("fine")
    odd.update(name=["x"], kind={"a": 1}, note=3, model={"parameters": "many"}, result={"val_loss": "low"})
    fine.update(result={"val_loss": 1.0})
    row = next(row for row in rows(workspace) if row.id == odd.id)
    assert (row.name, row.kind, row.note, row.parameters, row.val_loss) == (odd.id, None, None, None, None)
    assert ids(select(rows(workspace), sort="validation loss")) == [fine.id, odd.id]
    hash(row)  # which tells whether the list changed


def test_what_is_missing_is_told(make_run, save, workspace):
    failed, bare, whole = make_run("failed"), make_run("bare"), make_run("whole")
    failed.finish("failed", error="the loss is not a number")
    for run in (bare, whole):
        run.update(progress={"step": 3, "steps": 3})
        run.finish("completed")
    Metrics(whole.path).close()
    problems = {row.name: row.problem for row in rows(workspace)}
    assert problems["failed"] == "the loss is not a number"
    assert problems["bare"] == "its metrics are gone"
    assert problems["whole"] == "it has no model: no checkpoint is there"
    (whole.path / "config.json").write_text("{}")
    assert {row.name: row.problem for row in rows(workspace)}["whole"] is None


def test_nothing_is_made_by_looking(workspace):
    assert rows(workspace) == []
    assert not workspace.root.exists()


ROWS = [
    Row("b-1", "Beta", "pretrain", "completed", "tales", 500, val_loss=2.0, excess=0.3, created_at="2026-01-03"),
    Row("a-1", "alpha", "finetune", "failed", "Verdict", 100, val_loss=1.0, created_at="2026-01-02", note="Too Fast"),
    Row("c-1", "gamma", "pretrain", "failed", None, None, val_loss=3.0, excess=0.1, created_at="2026-01-01"),
    Row("d-1", "delta", problem="its run.json cannot be read"),
]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ["b-1", "a-1", "c-1", "d-1"]),
        ({"search": "ALPHA"}, ["a-1"]),
        ({"search": "fast verdict"}, ["a-1"]),
        ({"search": "fast tales"}, []),
        ({"search": "-1"}, ["b-1", "a-1", "c-1", "d-1"]),
        ({"status": "failed"}, ["a-1", "c-1"]),
        ({"status": "failed", "kind": "pretrain"}, ["c-1"]),
        ({"corpus": "tales"}, ["b-1"]),
        ({"sort": "oldest first"}, ["c-1", "a-1", "b-1", "d-1"]),
        ({"sort": "validation loss"}, ["a-1", "b-1", "c-1", "d-1"]),
        ({"sort": "excess over the floor"}, ["c-1", "b-1", "a-1", "d-1"]),
        ({"sort": "parameters"}, ["b-1", "a-1", "c-1", "d-1"]),
        ({"sort": "name"}, ["a-1", "b-1", "d-1", "c-1"]),
    ],
)
def test_search_filter_and_order(asked, wanted):
    assert ids(select(ROWS, **asked)) == wanted


def test_an_unknown_order_is_told():
    with pytest.raises(ValueError, match=r"no order 'best': choose one of newest first, oldest first"):
        select(ROWS, sort="best")


def test_records_are_read_when_they_change(run, workspace, monkeypatch):
    first = overview.record(run.path)
    monkeypatch.setattr(overview, "read_json", lambda path: pytest.fail("read again though nothing changed"))
    assert overview.record(run.path) is first
    monkeypatch.undo()
    run.update(note="new")
    assert overview.record(run.path)["note"] == "new"


def test_find_takes_what_run_open_takes_and_no_path_out(make_run, workspace, tmp_path):
    run, access = make_run("tales"), Access(workspace)
    for ref in (run.id, "tales", "latest", run.id[:-2]):
        assert find(access, ref).path == run.path
    for bad in ("../runs", f"../{run.id}", "..", "/etc", "a" * 300, "", f"%2e%2e/{run.id}"):
        with pytest.raises(ValueError):
            find(access, bad)
    run.path.rename(tmp_path / run.id)
    run.path.symlink_to(tmp_path / run.id)
    with pytest.raises(ValueError, match="is not in the workspace"):
        find(access, run.id)


def test_several_runs_side_by_side(make_run, workspace):
    rates = {"one": 0.1, "two": 0.2, "three": 0.1}
    runs = [make_run(name, RECIPE.format(rate)) for name, rate in rates.items()]
    for run, loss in zip(runs, (1.0, 2.0, None), strict=True):
        run.update(result={"val_loss": loss, "bits_per_byte": None})
    runs[2].update(seed=7)
    parts = compare(runs)
    assert parts["recipe"] == {"train.learning_rate": [0.1, 0.2, 0.1]}
    assert parts["origin"] == {"seed": [0, 0, 7]}
    assert parts["result"] == {"validation loss (nats per token)": [1.0, 2.0, None]}


def test_runs_without_recipe_or_record(make_run):
    first, second = make_run("one", RECIPE.format(0.1)), make_run("two")
    (second.path / "recipe.yaml").unlink()
    assert compare([first, second])["recipe"]["train.steps"] == [500, None]
    (second.path / "recipe.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=f"the recipe of {second.id} is no YAML"):
        compare([first, second])
    (second.path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=f"{second.id} cannot be compared"):
        compare([first, second])


def test_differing_leaves_out_what_is_alike():
    many = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "c": 4}]
    assert differing(many) == {"b": [2, 3, None], "c": [None, None, 4]}
