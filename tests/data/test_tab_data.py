"""The Data tab without a browser: its handlers as functions, and its endpoints as a program calls them."""

import re
from html import unescape
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client

import data.tab
from data import builtin, tab_corpora, tab_tokenizers
from data.access import Access
from data.builtin import BUILT_IN
from data.corpora import list_corpora, snapshot, snapshot_names
from data.tokenizer import train_version
from data.workspace import write_json
from page.html import Markup

OUTSIDE = ["../../etc", "/etc/passwd", "~/x", "..", "a%2f..%2fb", "nul\0", "x" * 500]


@pytest.fixture
def access(workspace) -> Access:
    return Access(workspace)


def words(markup: Markup) -> str:
    """What a reader sees."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", markup)).split())


def uploads(tmp_path, **files: str | bytes) -> list[str]:
    """Files as Gradio keeps them: each in a folder named by its hash."""
    paths = []
    for name, content in files.items():
        stem, suffix = name.rsplit("_", 1)
        path = tmp_path / "uploads" / f"hash-{stem}" / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(str(path))
    return paths


def test_building_the_page_writes_nothing_and_exposes_two_endpoints(access):
    with gr.Blocks() as page:
        tab = data.tab.build(access)
    assert isinstance(tab.to_train, gr.Button) and isinstance(tab.corpus, gr.Textbox)
    assert set(page.get_api_info()["named_endpoints"]) == {"/list_corpora", "/tokenize"}
    assert not page.get_api_info()["unnamed_endpoints"] and not access.workspace.root.exists()
    ids = {block.elem_id for block in page.blocks.values()}
    assert {"data-corpora", "data-upload", "data-name", "data-add", "data-detail", "data-tokenizers"} <= ids
    assert {"data-tokenizer-name", "data-tokenizer-corpus", "data-tokenizer-train"} <= ids
    assert {"data-text", "data-tokens", "data-compare"} <= ids


def test_uploads_become_a_corpus_and_go(access, tmp_path):
    files = uploads(tmp_path, rows_jsonl='{"body": "one  two"}\n' * 20 + '{"body": " "}', b_txt="three four. " * 9)
    said, name, chosen, listing, _ = tab_corpora.upload(access, [*files, files[0]], "mine", 0.2, 3, "body", "CC0")
    # of twenty rows four are held out; b.txt is longer than all of these and gives its end
    assert "mine: 17 + 5 documents" in words(said) and "left out: 1 empty documents" in words(said)
    assert (name, chosen) == ("mine", None) and 'data-name="mine"' in listing
    corpus = snapshot("mine", access.workspace)
    assert corpus.manifest["licence"] == "CC0" and corpus.manifest["split"]["seed"] == 3
    assert sorted(one["name"] for one in corpus.manifest["sources"]) == ["b.txt", "rows.jsonl"]
    assert not list((tmp_path / "uploads").iterdir())
    again = uploads(tmp_path, rows_jsonl='{"body": "one  two"}\n' * 20 + '{"body": " "}', b_txt="three four. " * 9)
    said, name, *_ = tab_corpora.upload(access, again, "mine", 0.2, 3, "body", "")
    assert "is there already" in words(said) and name == "mine"


def test_an_upload_needs_no_name(access, tmp_path):
    files = uploads(tmp_path, Letters_txt="Dear Ann. " * 30)
    assert tab_corpora.upload(access, files, " ", 0.1, 0, "", "")[1] == "Letters"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": None}, r"no file is chosen: add one or several of \.txt"),
        ({"files": {"a_txt": ""}}, "^a.txt: no text in it"),
        ({"files": {"a_txt": b"caf\xe9"}}, "^a.txt: not UTF-8: byte 0xe9 at offset 3"),
        ({"files": {"a_pdf": "x"}}, "^a.pdf: no reader for .pdf"),
        ({"files": {"a_jsonl": '{"body": "x"'}}, "^a.jsonl, line 1: not JSON"),
        ({"name": "../evil"}, "corpus '../evil' may hold letters"),
        ({"name": "tales"}, "'tales' is a built-in corpus"),
        ({"fraction": 7}, "validation_fraction 7 should be a share"),
        ({"fraction": None}, "the validation fraction should be a share"),
        ({"seed": 1.5}, "the seed should be a whole number"),
        ({"seed": float("inf")}, "the seed should be a whole number"),
        ({"seed": None}, "the seed should be a whole number"),
        ({"seed": -2}, "seed of a split is 0 or more"),
    ],
)
def test_a_wrong_upload_is_one_sentence_and_stays(access, tmp_path, change, message):
    given = {"name": "mine", "fraction": 0.1, "seed": 0, "field": "", "licence": "", **change}
    files = given.pop("files", {"a_txt": "some text " * 20})
    paths = files and uploads(tmp_path, **files)
    with pytest.raises(ValueError, match=message) as error:
        tab_corpora.upload(access, paths, **given)
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    assert not snapshot_names(access.workspace) and all(Path(path).is_file() for path in paths or [])


def test_a_corpus_is_opened_and_walked_through(access, corpus):
    head, body, panel, make, question, actions, documents = tab_corpora.open_detail(access, "small")
    assert "small" in words(head) and [panel["visible"], make["visible"], question["visible"]] == [True, False, False]
    assert actions["visible"] and documents["visible"]
    for fact in (
        "36",
        "by-document, 0.1 held out, seed 0",
        "small.jsonl",
        corpus.sha256[:12],
        "data.corpora add small",
    ):
        assert fact in words(body)
    seen, numbers = tab_corpora.look(access, "small", "train", ""), []
    while True:
        drawn, starts, following, earlier, later = seen
        numbers += [int(number) for number in re.findall(r"document (\d+) ·", drawn)]
        assert earlier["interactive"] == (starts != [0]) and later["interactive"] == (following is not None)
        if following is None:
            break
        seen = tab_corpora.later_page(access, "small", "train", "", starts, following)
    assert numbers == list(range(1, 37))
    drawn, starts, *_ = tab_corpora.earlier_page(access, "small", "train", "", starts)
    assert "document 31 ·" in drawn and starts[-1] == 30
    drawn, starts, *_ = tab_corpora.go_to(access, "small", "train", "", 3)
    assert drawn.index("document 3 ·") and tab_corpora.earlier_page(access, "small", "train", "", starts)[1] == [0]
    assert tab_corpora.open_detail(access, "")[2]["visible"] is False


def test_text_of_a_corpus_is_never_html(access, tmp_path):
    files = uploads(tmp_path, a_txt="<script>alert(1)</script> & more " * 30)
    tab_corpora.upload(access, files, "evil", 0.1, 0, "", "<b>")
    shown = tab_corpora.look(access, "evil", "train", "SCRIPT")[0]
    assert "<script" not in shown and "&lt;<mark>script</mark>&gt;" in shown
    assert "<b>" not in tab_corpora.open_detail(access, "evil")[0]


@pytest.mark.parametrize(
    ("number", "message"), [(0, "1 to 36"), (37, "1 to 36"), (None, "whole number"), (2.5, "whole")]
)
def test_documents_that_are_not_there(access, corpus, number, message):
    with pytest.raises(ValueError, match=message):
        tab_corpora.go_to(access, "small", "train", "", number)


def test_a_built_in_corpus_is_made(access, monkeypatch):
    monkeypatch.setattr(builtin, "TALES", 60)
    monkeypatch.setattr(builtin, "TALES_HELD_OUT", 6)
    _, body, _, make, _, actions, documents = tab_corpora.open_detail(access, "tales")
    assert "not made yet" in words(body) and "data.corpora fetch tales" in words(body)
    assert make["visible"] and not actions["visible"] and not documents["visible"]
    _, listing, _ = tab_corpora.make_now(access, "tales")
    floor = snapshot("tales", access.workspace).floor["validation"]
    assert f"60 {floor['bits_per_byte']:.4f}" in re.sub(r"[\d.]+ kB ", "", words(listing))
    body = words(tab_corpora.open_detail(access, "tales")[1])
    assert f"{floor['nats_per_document']:.2f} nats a document" in body and "held out, seed train 0" in body
    with pytest.raises(ValueError, match="'mine' is not a built-in corpus"):
        tab_corpora.make_now(access, "mine")


def test_deleting_asks_and_is_refused_while_a_run_refers_to_it(access, corpus, workspace):
    question, panel = tab_corpora.ask_delete(access, "small")
    assert "Delete the snapshot small?" in words(question) and panel["visible"]
    run = workspace.room("runs") / "r-000001"
    run.mkdir()
    write_json(run / "run.json", {"inputs": {"corpus": {"name": "small", "sha256": corpus.sha256}}, "ended_at": None})
    with pytest.raises(ValueError, match="runs refer to it: r-000001"):
        tab_corpora.delete(access, "small")
    (run / "run.json").unlink()
    chosen, listing, _ = tab_corpora.delete(access, "small")
    assert chosen == "" and "small" not in words(listing) and not snapshot_names(workspace)


def test_a_tick_without_news_does_nothing(access, corpus):
    listing, seen = tab_corpora.watch_corpora(access, None)
    assert "small" in words(listing)
    assert tab_corpora.watch_corpora(access, seen)[0] == gr.skip()
    first = tab_tokenizers.watch(access, None, None)
    assert "no tokenizers yet" in words(first[0])
    assert tab_tokenizers.watch(access, first[1], None)[0] == gr.skip()
    train_version("one", "char", corpus, 0, access.workspace)
    listing, _, left, right, corpora = tab_tokenizers.watch(access, first[1], None)
    assert "one@v1 char small" in words(listing) and left["value"] == "one@v1" and right["choices"] == ["one@v1"]
    assert corpora["choices"] == [*BUILT_IN, "small"]


def test_a_tokenizer_is_trained_with_options_and_compared_on_a_corpus(access, corpus):
    tab_tokenizers.train_one(access, "small", "bpe", 290, "one")
    said, chosen = tab_tokenizers.train_one(access, "small", "bpe", 290, "one", r"naïve|\d+:", 2, True, False, "nfc")
    assert chosen["value"] == "one@v2" and "290 entries" in words(said)
    report = words(tab_tokenizers.show_report(access, "one"))
    assert "special pattern naïve|\\d+:, special limit 2, split digits, normalization nfc" in report
    assert r"--special-pattern 'naïve|\d+:' --special-limit 2 --split-digits --normalization nfc" in report
    assert "Its normalisation loses information" in report and "never split" in report and "Cyrillic" in report
    compared = words(tab_tokenizers.compare_on_corpus(access, "one@v1", "one@v2", "small"))
    assert "validation text of small" in compared and "more tokens in one@v1" in compared
    assert [row["name"] for row in list_corpora(access.workspace) if row["made"]] == [
        one[0] if isinstance(one, tuple) else one for one in tab_tokenizers.made_corpora(access)["choices"]
    ]
    for left, right, text, message in (
        ("one@v1", None, "small", "choose two tokenizers"),
        ("one@v1", "one@v2", "tales", "no snapshot 'tales'"),
        ("one@v1", "one@v2", "", "nothing is chosen"),
    ):
        with pytest.raises(ValueError, match=message):
            tab_tokenizers.compare_on_corpus(access, left, right, text)


def test_a_tokenizer_is_trained_and_its_text_cut(access, corpus):
    said, chosen = tab_tokenizers.train_one(access, "small", "bpe", 300, "one")
    assert chosen["value"] == "one@v1" and "one@v1: 300 entries" in words(said)
    assert tab_tokenizers.train_one(access, "small", "char", 300, "")[1]["value"] == "small-char@v1"
    tokens, compared = tab_tokenizers.show_text(access, "one", "small-char", "The fox <i>")
    record = train_version("one", "bpe", corpus, 300, access.workspace)  # found, not trained again
    assert tokens.count("data-token=") == len(record.tokenizer("The fox <i>")["input_ids"])
    assert "11 characters" in words(tokens) and "<i>" not in tokens and "id " in tokens
    assert "stretches of the text are cut differently" in words(compared) and compared.count("data-token=") == 11
    same = tab_tokenizers.show_text(access, "one", "one@v1", "The fox")[1]
    assert "Both cut this text at the same places" in words(same)
    report = words(tab_tokenizers.show_report(access, "one"))
    assert "data.tokenizer train one --corpus small --kind bpe --vocab-size 300" in report
    assert "300" in report and corpus.sha256[:12] in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": None}, "nothing is chosen"),
        ({"corpus": "nothing"}, "there is no corpus 'nothing'"),
        ({"kind": "wordpiece"}, "there is no kind 'wordpiece'"),
        ({"size": 3}, "vocab_size 3 is too small"),
        ({"size": 1e9}, "vocab_size 1,000,000,000 is too large"),
        ({"size": None}, "the number of entries should be a whole number"),
        ({"size": 2.5}, "the number of entries should be a whole number"),
        ({"name": "../x"}, "may hold letters"),
        ({"name": "char"}, "is a kind of tokenizer"),
    ],
)
def test_a_wrong_tokenizer_is_one_sentence(access, corpus, change, message):
    given = {"corpus": "small", "kind": "bpe", "size": 300, "name": "one", **change}
    with pytest.raises(ValueError, match=message):
        tab_tokenizers.train_one(access, **given)
    assert not list((access.workspace.root / "tokenizers").glob("*"))


def test_a_million_characters_are_cut_short_and_it_is_said(access, corpus):
    train_version("one", "char", corpus, 0, access.workspace)
    tokens, _ = tab_tokenizers.show_text(access, "one", None, "x y " * 250_000)
    assert "has 1,000,000 characters; its first 5,000 are cut here" in words(tokens)
    assert tokens.count("data-token=") == 5_000
    assert "Type a text" in tab_tokenizers.show_text(access, "one", None, "")[0]
    assert "Choose a tokenizer" in tab_tokenizers.show_text(access, None, None, "text")[0]


def test_the_vocabulary_is_paged_and_searched(access, corpus):
    train_version("one", "bpe", corpus, 300, access.workspace)
    page, start, earlier, later = tab_tokenizers.show_vocabulary(access, "one", "")
    assert "1 to 25 of 300 entries" in words(page) and words(page).count("reserved") == 4
    assert (start, earlier["interactive"], later["interactive"]) == (0, False, True)
    for _ in range(11):
        page, start, earlier, later = tab_tokenizers.turn(access, 25, "one", "", start)
    assert "276 to 300 of 300" in words(page) and not later["interactive"] and earlier["interactive"]
    assert "No entry has this" in tab_tokenizers.show_vocabulary(access, "one", "zzzz")[0]
    assert tab_tokenizers.show_vocabulary(access, None, "")[0] == ""


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_workspace(access, corpus, name):
    for handler in (
        lambda: tab_corpora.open_detail(access, name),
        lambda: tab_corpora.made(access, name),
        lambda: tab_corpora.make_now(access, name),
        lambda: tab_corpora.delete(access, name),
        lambda: tab_tokenizers.train_one(access, name, "bpe", 300, "x"),
        lambda: tab_tokenizers.show_text(access, name, None, "text"),
        lambda: tab_tokenizers.show_report(access, name),
        lambda: tab_tokenizers.show_vocabulary(access, name, ""),
    ):
        with pytest.raises(ValueError, match=r"is not in the workspace|a name has at most"):
            handler()


def test_a_read_only_page_changes_nothing(access, corpus, tmp_path):
    shown = Access(access.workspace, read_only=True)
    files = uploads(tmp_path, a_txt="some text " * 20)
    for handler in (
        lambda: tab_corpora.make_now(shown, "tales"),
        lambda: tab_corpora.upload(shown, files, "mine", 0.1, 0, "", ""),
        lambda: tab_corpora.ask_delete(shown, "small"),
        lambda: tab_corpora.delete(shown, "small"),
        lambda: tab_tokenizers.train_one(shown, "small", "bpe", 300, "one"),
    ):
        with pytest.raises(ValueError, match="this page is read-only"):
            handler()
    assert snapshot_names(access.workspace) == ["small"] and not (access.workspace.root / "tokenizers").exists()
    assert "36" in words(tab_corpora.open_detail(shown, "small")[1])


def test_a_program_can_ask(access, corpus):
    train_version("one", "char", corpus, 0, access.workspace)
    with gr.Blocks(analytics_enabled=False) as page:
        data.tab.build(access)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False)
        rows = client.predict(api_name="/list_corpora")
        assert [row["name"] for row in rows] == [row["name"] for row in list_corpora(access.workspace)]
        assert {*BUILT_IN, "small"} <= {row["name"] for row in rows}
        found = client.predict("one", "fox 好", api_name="/tokenize")
        assert bytes.fromhex("".join(token["bytes"] for token in found["tokens"])).decode() == "fox 好"
        assert (found["characters"], found["bytes"], found["note"]) == (5, 7, "")
        assert [token["text"] for token in found["tokens"][:4]] == ["f", "o", "x", " "]
        assert len(client.predict("one", "x" * 6000, api_name="/tokenize")["tokens"]) == 5000
        with pytest.raises(Exception, match="is not in the workspace"):
            client.predict("../../etc", "fox", api_name="/tokenize")
        with pytest.raises(Exception, match="the text is empty"):
            client.predict("one", "", api_name="/tokenize")
    finally:
        page.close()
