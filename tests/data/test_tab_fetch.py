"""Fetches from the page: a real process that is started, stopped, continued and found again, and the handlers."""

import time

import gradio as gr
import pytest

from data import fetch_jobs, tab_corpora, tab_fetch, tab_statistics
from data.access import Access
from data.corpora import add_corpus, list_corpora, snapshot_names
from data.hub_corpora import Choice, request_for
from data.partial import Partial, Position
from tests.data.dataset_hub import DatasetHub, card, parquet


@pytest.fixture
def access(workspace) -> Access:
    return Access(workspace)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = DatasetHub()
    shards = {
        f"data/train-{k:05}-of-00002.parquet": parquet([{"text": f"text {k} {i}"} for i in range(50)]) for k in (0, 1)
    }
    server.repos["some/texts"] = shards | {"README.md": card()}
    for name, value in server.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    yield server
    server.release.set()
    server.shutdown()


def wait_for(access: Access, reached) -> list[dict]:
    deadline = time.monotonic() + 60
    while not reached(rows := fetch_jobs.fetches(access.workspace)):
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)
    return rows


def test_a_fetch_is_started_stopped_found_again_and_continued(hub, access):
    hub.held = {"data/train-00001-of-00002.parquet"}
    said, shown = tab_fetch.start(access, "some/texts", limit="80 documents")
    assert "some-texts is being fetched" in said and 'data-act="stop"' in shown
    (row,) = wait_for(access, lambda rows: rows[0]["phase"] == "fetching")
    assert (row["split"], row["command"]) == ("train", ["fetch", "some/texts", "--documents=80"])
    with pytest.raises(ValueError, match="is being fetched already"):
        tab_fetch.start(access, "some/texts", limit="80 documents")
    with pytest.raises(ValueError, match="stop it first"):
        tab_fetch.decide(access, "discard", row["id"])
    shown, _ = tab_fetch.decide(access, "stop", row["id"])
    assert "interrupted" in shown and 'data-act="go_on"' in shown
    later = Access(access.workspace)  # a page that was started again
    assert fetch_jobs.fetches(later.workspace)[0]["status"] == "interrupted"
    hub.held = set()
    hub.release.set()
    tab_fetch.decide(later, "go_on", row["id"])
    wait_for(access, lambda rows: not rows)
    assert snapshot_names(access.workspace) == ["some-texts"]
    splits = next(row for row in list_corpora(access.workspace) if row["name"] == "some-texts")
    assert splits["documents"] == 80
    with pytest.raises(ValueError, match="some-texts is there already"):
        tab_fetch.start(access, "some/texts", limit="80 documents")


def test_why_a_fetch_failed_is_shown_until_it_is_removed(access, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tab_fetch.start(access, "c4")
    (row,) = wait_for(access, lambda rows: rows[0]["status"] == "failed")
    shown, drawn = tab_fetch.watch(access, None)
    assert "HF_HUB_OFFLINE is set" in shown and "python -m data.corpora fetch c4" in shown
    assert tab_fetch.watch(access, drawn) == (gr.skip(), gr.skip())
    assert tab_fetch.decide(access, "discard", row["id"]) == ("", "") and not fetch_jobs.fetches(access.workspace)
    with pytest.raises(ValueError, match="finished or was removed"):
        tab_fetch.decide(access, "go_on", row["id"])


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "a/b/c", "--help/x", "nothing", "", None, f"a/{'x' * 300}"]
)
def test_what_is_no_dataset_is_refused(access, name):
    with pytest.raises(ValueError, match=r"no id of a dataset|characters long"):
        tab_fetch.start(access, name)
    assert not access.workspace.root.exists()


def test_caps_as_they_are_typed():
    assert [tab_fetch.cap(text) for text in ("", None, "5000 documents", "1 document", "20 MB", "1,000")] == [
        {}, {}, {"documents": 5000}, {"documents": 1}, {"bytes": 20_000_000}, {"bytes": 1000},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'many' should be a number of bytes"):
        tab_fetch.cap("many")


def test_a_read_only_page_fetches_nothing(workspace):
    access = Access(workspace, read_only=True)
    handlers = [
        lambda: tab_fetch.start(access, "c4"),
        lambda: tab_fetch.decide(access, "discard", "x"),
        lambda: tab_fetch.make_mixture(access, "x", "tales=1 verdict=1", "", 0),
        lambda: tab_statistics.work_out(access, "small"),
    ]
    for handler in handlers:
        with pytest.raises(ValueError, match="read-only"):
            handler()
    assert not workspace.root.exists()


def test_a_corpus_of_the_hub_is_listed_and_described(access):
    listing, _ = tab_corpora.watch_corpora(access, None)
    assert 'data-name="fineweb-edu"' in listing and "ODC-BY" in listing and "≈ 807 GB" in listing
    head, body, *_ = tab_corpora.open_detail(access, "fineweb-edu")
    assert "fineweb-edu" in head and "HuggingFaceFW/fineweb-edu" in body and "sample-10BT" in body and "100 MB" in body
    assert "python -m data.corpora fetch fineweb-edu" in body


def test_progress_is_drawn_with_what_is_left(access):
    partial = Partial.of(access.workspace, "c4", request_for("c4", Choice()))
    partial.create("c4", request_for("c4", Choice()))
    partial.tell("fetching", split="train", documents=1234, bytes=5_000_000, share=0.05, eta_seconds=95.0)
    with partial.alone(lambda: None):
        shown, _ = tab_fetch.watch(access, None)
        assert "train: 1,234 documents, 5 MB, 1 min 35 s left" in shown and "width:5.00%" in shown
    assert "interrupted" in tab_fetch.watch(access, None)[0]
    partial.write_positions({}, {"train": Position()})
    (partial.path / "progress.json").write_text("{")
    assert fetch_jobs.fetches(access.workspace)[0]["status"] == "interrupted"


def test_a_mixture_is_made_and_statistics_are_measured(access, corpus, write):
    add_corpus("other", [write("other.txt", "Another text. " * 400)], access.workspace)
    said, name = tab_fetch.make_mixture(access, " blend ", "small=1, other=1", "1 kB", 0)
    assert name == "blend" and "blend:" in said
    shown, button = tab_statistics.look(access, "blend")
    assert shown == "" and button["visible"]
    shown, button = tab_statistics.work_out(access, "blend")
    assert "most frequent words" in shown and not button["visible"]
    assert tab_statistics.look(access, "blend")[0] == shown
    with pytest.raises(ValueError, match="c4 is not here yet: fetch it first"):
        tab_fetch.make_mixture(access, "x", "small=1 c4=1", "", 0)
    with pytest.raises(ValueError, match="no name"):
        tab_fetch.make_mixture(access, "", "small=1 other=1", "", 0)


def test_building_writes_nothing(access):
    with gr.Blocks() as page:
        tab_corpora.build(access)
    ids = {block.elem_id for block in page.blocks.values()}
    assert {"data-fetches", "data-hub-name", "data-hub-fetch", "data-mix-go", "data-measure"} <= ids
    info = page.get_api_info()
    assert not info["named_endpoints"] and not info["unnamed_endpoints"] and not access.workspace.root.exists()
