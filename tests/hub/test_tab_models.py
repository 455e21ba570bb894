"""The Models tab's handlers as plain functions: what they show, refuse, and leave as it is."""

import re
from html.parser import HTMLParser

import gradio as gr
import pytest

from data.access import Access
from hub import live, tab_list, tab_models, tab_run
from hub.metrics import METRICS, Metrics, append_sample
from hub.tab_list import compared, listed
from hub.tab_run import PARTS, asked_to_delete, deleted, followed, noted, opened, renamed

EVERY = ("", "", "", "", "", tab_list.PAGE)  # no search, no filter
EVIL = '<script>alert("1")</script>'


class Elements(HTMLParser):
    """The elements of a piece of HTML, (tag, attributes), and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def acts(self) -> list[str]:
        return [attributes["data-run"] for _, attributes in self.found if attributes.get("data-act") == "open"]


@pytest.fixture
def access(workspace) -> Access:
    return Access(workspace)


@pytest.fixture
def measured(make_run):
    def make(name: str = "tales", steps: int = 60, status: str = "completed", recipe: str | None = None):
        run = make_run(name, **({"recipe": recipe} if recipe else {}))
        metrics = Metrics(run.path)
        for step in range(1, steps + 1):
            row = {"train_loss": 5 / step, "grad_norm": 1.0, "tokens_sec": 9.0, "learning_rate": 0.1}
            evaluated = {"val_loss": 1.5} if step % 20 == 0 else {}
            metrics.add(step, **row, **evaluated, tokens=100 * step, seconds=step / 2)
        metrics.close()
        append_sample(run.path, steps, f"{name} wrote this", temperature=1.0)
        run.update(progress={"step": steps, "steps": steps})
        run.finish(status, result={"val_loss": 1.4, "floor": 1.2, "excess": 0.2})
        return run

    return make


def parts_of(result) -> dict:
    """The drawn parts of what `opened` or `followed` returned."""
    return dict(zip(PARTS, result[-len(PARTS) :], strict=True))


def is_skip(value) -> bool:
    return isinstance(value, dict) and "value" not in value and value.get("__type__") == "update"


def test_the_list_has_a_line_for_each_run(measured, make_run, access):
    runs = [measured("one"), make_run("two"), make_run("three")]
    (runs[1].path / "run.json").write_text("{")
    runs[2].update(name=EVIL, note=EVIL)
    html, _ = listed(access, *EVERY)
    page = Elements(html)
    assert sorted(page.acts()) == sorted(run.id for run in runs)
    assert len([tag for tag, _ in page.found if tag == "button"]) == 3  # each can be reached with the keyboard
    assert "script" not in {tag for tag, _ in page.found}
    assert EVIL in page.text
    assert "its run.json cannot be read" in page.text
    assert len([tag for tag, _ in page.found if tag == "svg"]) == 1  # one run has a curve


def test_an_empty_workspace_says_how_to_begin(access):
    html, _ = listed(access, *EVERY)
    assert "Train tab" in html and "make demo" in html
    assert not access.workspace.root.exists()


def test_a_search_without_a_match_is_no_empty_workspace(measured, access):
    measured()
    assert "No run is like that" in listed(access, "zebra", *EVERY[1:])[0]


def test_the_list_is_drawn_again_only_when_something_changed(measured, access):
    run = measured()
    _, told = listed(access, *EVERY)
    assert all(map(is_skip, listed(access, *EVERY, told)))
    run.update(note="now there is one")
    html, new = listed(access, *EVERY, told)
    assert "now there is one" in html and new != told


def test_no_more_than_asked_are_drawn(make_run, access):
    for i in range(5):
        make_run(f"run{i}")
    html, told = listed(access, *EVERY[:-1], 2)
    assert len(Elements(html).acts()) == 2
    assert 'data-act="more"' in html and "3 left" in html
    more, new = listed(access, *EVERY[:-1], 52, told)
    assert len(Elements(more).acts()) == 5 and 'data-act="more"' not in more and new != told


def test_an_opened_run_shows_everything(measured, save, access):
    run = measured()
    save(run, 60)
    run.update(inputs={"parent": {"run": run.id, "revision": "step-000060"}})
    run.log("a line of the log")
    known, panel, timer, seen, name, remark, *_ = result = opened(access, "latest", "step", False)
    parts = parts_of(result)
    assert (known, panel.visible, timer.active, seen["run"], name, remark) == (run.id, True, True, run.id, "tales", "")
    assert run.id in parts["head"] and "completed" in parts["head"]
    assert "tales-bpe-1024@v1" in parts["card"] and "0.2" in parts["card"]
    charts = re.findall(r"<figcaption>(.*?)</figcaption>", parts["curves"])
    assert charts == ["Loss", "Learning rate", "Gradient norm", "Speed"]
    for words in ("training", "validation", "entropy of the corpus (1.200)", "optimizer step", "loss (nats per token)"):
        assert words in parts["curves"]
    assert "tales wrote this" in parts["samples"] and "step 60" in parts["samples"]
    assert f"{run.id}@step-000060" in parts["checkpoints"] and "main" in parts["checkpoints"]
    assert "learning_rate: 0.001" in parts["recipe"]
    assert Elements(parts["origin"]).acts() == [run.id]
    assert "a line of the log" in parts["log"]
    assert is_skip(opened(access, run.id, "step", False)[0])  # an id stays as it is


@pytest.mark.parametrize(
    ("axis", "words"), [("step", "optimizer step"), ("tokens", "tokens seen"), ("seconds", "seconds")]
)
def test_curves_against_steps_tokens_and_time(measured, access, axis, words):
    measured()
    html = parts_of(opened(access, "latest", axis, True))["curves"]
    assert words in html
    last = {"step": 60, "tokens": 6000, "seconds": 30}[axis]
    assert f"&quot;high&quot;: {last}.0" in html


def test_nothing_opened_nothing_shown(access):
    _, panel, timer, seen, name, remark, question, *parts = opened(access, "", "step", False)
    assert not panel.visible and not timer.active and seen == {}
    assert not question.visible and {name, remark, *parts} == {""}
    assert all(map(is_skip, followed(access, "step", False, {})))


@pytest.mark.parametrize("ref", ["no-such-run", "../../etc", "/etc/passwd", "x" * 999, "a\0b"])
def test_what_is_no_run_is_a_sentence(measured, access, ref):
    measured()
    with pytest.raises(ValueError, match=r"no run|not in the workspace|characters long"):
        opened(access, ref, "step", False)


def test_only_what_changed_is_drawn_again(measured, access):
    run = measured()
    seen = opened(access, run.id, "step", False)[3]
    assert all(map(is_skip, followed(access, "step", False, seen)))
    metrics = Metrics(run.path)
    metrics.add(61, train_loss=0.01, tokens=6100, seconds=31.0)
    metrics.close()
    new, *_ = result = followed(access, "step", False, seen)
    assert {name for name, part in parts_of(result).items() if not is_skip(part)} == {"curves"}
    assert all(map(is_skip, followed(access, "step", False, new)))
    assert "tokens seen" in parts_of(followed(access, "tokens", False, new))["curves"]


def test_a_run_that_is_gone_says_so(measured, access):
    run = measured()
    seen = opened(access, run.id, "step", False)[3]
    run.delete()
    assert "its folder is gone" in parts_of(followed(access, "step", False, seen))["head"]


def test_broken_folders_are_told_where_they_are_broken(measured, access):
    run = measured()
    (run.path / METRICS).write_text("{spoilt\n")
    (run.path / "samples.jsonl").write_text("[\n")
    parts = parts_of(opened(access, run.id, "step", False))
    assert "no row of metrics" in parts["curves"] and "not JSON" in parts["samples"]
    assert "tales-bpe-1024@v1" in parts["card"]
    for name in (METRICS, "samples.jsonl", "recipe.yaml"):
        (run.path / name).unlink()
    parts = parts_of(opened(access, run.id, "step", False))
    assert "nothing measured yet" in parts["curves"] and "nothing sampled yet" in parts["samples"]
    (run.path / "run.json").write_text("{")
    parts = parts_of(opened(access, run.id, "step", False))
    assert "its run.json cannot be read" in parts["head"] and parts["card"] == ""


def test_nothing_in_a_folder_is_taken_for_html(measured, access):
    run = measured()
    run.update(name=EVIL, note=EVIL, error=EVIL, kind=EVIL, status="failed", command=[EVIL],
               inputs={"corpus": {"name": EVIL, "sha256": EVIL}, "parent": {"run": EVIL, "revision": EVIL}},
               machine={"cpu": EVIL}, versions={EVIL: EVIL})  # fmt: skip
    append_sample(run.path, 70, EVIL, how=EVIL)
    run.log(EVIL)
    (run.path / "recipe.yaml").write_text(f"note: {EVIL}\n")
    drawn = [*parts_of(opened(access, run.id, "step", False)).values(), listed(access, *EVERY)[0]]
    drawn.append(compared(access, [run.id, measured("other").id], "step", False)[1])
    for html in drawn:
        assert "script" not in {tag for tag, _ in Elements(html).found}
    assert sum(html.count("&lt;script&gt;") for html in drawn) > 10


def test_several_runs_over_one_another(measured, access):
    recipe = "train:\n  steps: 60\n  learning_rate: {}\n"
    runs = [measured(name, recipe=recipe.format(rate)) for name, rate in (("one", 0.1), ("two", 0.2), ("three", 0.1))]
    panel, html = compared(access, [run.id for run in runs], "tokens", False)
    assert panel.visible
    for run in runs:
        assert html.count(f"</i>{run.id}</li>") == 2  # in the legends of both charts
        assert f"{run.name} wrote this" in html
    assert html.count("tokens seen") >= 2
    assert re.search(r"<td>train\.learning_rate</td><td>0\.1</td><td>0\.2</td><td>0\.1</td>", html)
    assert "train.steps" not in html


def test_one_run_is_no_comparison(measured, access):
    run = measured()
    for ids in ([], [run.id], [run.id, run.id], [run.id, "gone-123456"], [run.id, "../../etc"]):
        with pytest.raises(ValueError, match="tick two runs or more"):
            compared(access, ids, "step", False)


def test_name_and_note(measured, access):
    run = measured()
    assert renamed(access, run.id, "  A better\n name ") == "A better name"
    assert noted(access, run.id, " watch the norm ") == "watch the norm"
    assert (run.info()["name"], run.info()["note"], run.info()["id"]) == ("A better name", "watch the norm", run.id)
    assert opened(access, run.id, "step", False)[4:6] == ("A better name", "watch the norm")
    assert noted(access, run.id, "") == ""
    for bad in ("", "  ", None, "x" * 65):
        with pytest.raises(ValueError, match="1 to 64 characters"):
            renamed(access, run.id, bad)
    with pytest.raises(ValueError, match="2,000 characters"):
        noted(access, run.id, "x" * 2001)
    assert run.info()["name"] == "A better name"


def test_deleting_asks_and_names_the_run(measured, access):
    run, other = measured(), measured("other")
    panel, words, yes = asked_to_delete(access, run.id)
    assert panel.visible and run.id in words and run.id in yes.value
    assert run.path.exists()
    assert deleted(access, run.id)[0] == ""
    assert not run.path.exists() and other.path.exists()


def test_a_live_run_is_not_deleted(make_run, access):
    run = make_run(status="running")
    for handler in (asked_to_delete, deleted):
        with pytest.raises(ValueError, match=f"run {run.id} is running; stop it"):
            handler(access, run.id)
    assert run.path.exists()


def test_a_read_only_page_changes_nothing(measured, workspace):
    run, access = measured(), Access(workspace, read_only=True)
    before = (run.path / "run.json").read_bytes()
    for work in (
        lambda: renamed(access, run.id, "new"),
        lambda: noted(access, run.id, "new"),
        lambda: asked_to_delete(access, run.id),
        lambda: deleted(access, run.id),
    ):
        with pytest.raises(ValueError, match="read-only"):
            work()
    assert (run.path / "run.json").read_bytes() == before
    assert run.id in parts_of(opened(access, run.id, "step", False))["head"]


@pytest.fixture
def endpoints(access) -> dict:
    """The functions that a program may call, by name; none but these are offered."""
    with gr.Blocks() as page, gr.Tab("Models"):
        tab_models.build(access)
    offered = [one for one in page.fns.values() if one.api_visibility == "public"]
    return {one.api_name: one.fn for one in offered}


def test_only_three_endpoints_are_offered_and_nothing_is_written(endpoints, access):
    assert set(endpoints) == {"list_runs", "show_run", "metrics"}
    assert all(function.__doc__ for function in endpoints.values())
    assert not access.workspace.root.exists()


def test_a_program_lists_and_shows_runs(endpoints, measured, save):
    run, other = measured(), measured("other")
    save(run, 60)
    assert [row["id"] for row in endpoints["list_runs"]()] == [other.id, run.id]
    assert [row["name"] for row in endpoints["list_runs"](search="tales", sort="name", limit=1)] == ["other"]
    shown = endpoints["show_run"]("tales")
    assert (shown["id"], shown["status"]) == (run.id, "completed")
    assert shown["checkpoints"] == [{"revision": "step-000060", "resumable": True}]
    for call in (
        lambda: endpoints["list_runs"](sort="best"),
        lambda: endpoints["list_runs"](limit="many"),
        lambda: endpoints["show_run"]("../../etc"),
        lambda: endpoints["metrics"]("nobody"),
    ):
        with pytest.raises(gr.Error):
            call()


def test_a_program_gets_curves_that_keep_their_spikes(endpoints, measured):
    run = measured(steps=3000)
    metrics = Metrics(run.path)
    metrics.add(3001, train_loss=77.0)
    metrics.add(3002, train_loss=float("inf"))
    metrics.add(3003, train_loss=0.5)
    metrics.close()
    found = endpoints["metrics"](run.id, None, 100)
    whole = live.read(run.path)
    assert set(found) == set(whole.columns) - {"step"}
    assert len(found["train_loss"]["step"]) <= 100
    assert max(found["train_loss"]["value"]) == 77.0
    by_step = dict(zip(whole.columns["step"], whole.columns["train_loss"], strict=True))
    assert all(by_step[step] == value for step, value in zip(*found["train_loss"].values(), strict=True))
    assert 30 < len(found["val_loss"]["step"]) <= 100  # of 150 evaluations
    for columns, points in ((["nothing"], 100), (None, 3), (None, "x")):
        with pytest.raises(gr.Error):
            endpoints["metrics"](run.id, columns, points)


def test_every_part_has_its_place(access):
    """The page's parts and what tells that they changed are the same names."""
    run_parts = set(PARTS)
    assert set(tab_run.BARE) <= run_parts
    with gr.Blocks() as page:
        tab_models.build(access)
    ids = {block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert {"models-search", "models-list", "models-detail", "models-compare", "models-run", "models-curves"} <= ids
