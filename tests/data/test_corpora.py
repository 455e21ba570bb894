"""Corpora and their snapshots: found again, never stale, never overwritten."""

import hashlib
import json
import math
import shutil
import sys

import pytest

from data import builtin, corpora_cli
from data.console import cli
from data.corpora import BUILT_IN, HUB, add_corpus, open_corpus
from data.snapshots import split_documents
from data.tales import log_prob
from data.workspace import sha256_json


def run(capsys, monkeypatch, *args: str) -> tuple[int, str, str]:
    """A command of `python -m data.corpora` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["corpora", *args])
    with pytest.raises(SystemExit) as end:
        cli(corpora_cli.main)
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def few_tales(monkeypatch):
    monkeypatch.setattr(builtin, "TALES", 50)
    monkeypatch.setattr(builtin, "TALES_HELD_OUT", 10)


def hash_texts(texts: list[str]) -> str:
    return hashlib.sha256(b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in texts)).hexdigest()


def test_a_snapshot_says_what_it_is(corpus, texts):
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    held_out = list(corpus.split("validation")["text"])
    kept = list(corpus.split("train")["text"])
    assert len(held_out) == 4 and sorted(held_out + kept) == sorted(texts)
    assert manifest["split"] == {"kind": "by-document", "seed": 0, "fraction": 0.1, "tails": 0}
    counted = {"documents": 4, "characters": sum(map(len, held_out)), "bytes": sum(len(t.encode()) for t in held_out)}
    assert manifest["splits"]["validation"] == {**counted, "sha256": hash_texts(held_out)}
    # of the texts alone: any machine, and any version of Parquet, comes to the same
    assert corpus.sha256 == sha256_json({"train": hash_texts(kept), "validation": hash_texts(held_out)})
    assert manifest["name"] == "small" and manifest["schema"] == 1 and manifest["floor"] is None
    assert manifest["sources"][0]["name"] == "small.jsonl" and manifest["parents"] == []
    assert list(corpus.texts("train")) == kept


def test_datasets_opens_a_snapshot(corpus, tmp_path):
    from datasets import load_dataset

    files = {split: str(corpus.path / f"{split}.parquet") for split in ("train", "validation")}
    opened = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert list(opened["train"]["text"]) == list(corpus.texts("train"))


def test_the_same_files_are_the_same_snapshot(write, workspace, capsys):
    path = write("book.txt", "One text, " * 50)
    first = open_corpus(path, workspace)
    assert first.name == "book" and "made in" in capsys.readouterr().err
    for name in (path, "book"):
        assert open_corpus(name, workspace) == first
    assert capsys.readouterr().err == ""


def test_changed_files_make_another_version_beside_the_old(write, workspace, capsys):
    path = write("book.txt", "One text, " * 50)
    first = open_corpus(path, workspace)
    path.write_text("Another text, " * 50)
    second = open_corpus(path, workspace)
    assert second.name.startswith("book-") and "book is other text" in capsys.readouterr().err
    assert next(second.texts("train")).startswith("Another")
    assert next(open_corpus("book", workspace).texts("train")).startswith("One")
    assert open_corpus(path, workspace) == second  # found again, not made a third time
    path.write_text("One text, " * 50)
    assert open_corpus(path, workspace) == first
    halves = open_corpus(path, workspace, validation_fraction=0.5)
    assert halves.name not in (first.name, second.name) and halves.manifest["split"]["fraction"] == 0.5


def test_a_snapshot_named_like_a_changed_folder_says_so(write, workspace, monkeypatch, tmp_path, capsys):
    write("notes/a.txt", "One text, " * 50)
    monkeypatch.chdir(tmp_path)
    first = open_corpus("notes", workspace)
    assert open_corpus("notes", workspace) == first
    write("notes/a.txt", "Another text, " * 50)
    capsys.readouterr()
    assert open_corpus("notes", workspace) == first
    assert "taking the snapshot notes; ./notes holds other text" in capsys.readouterr().err
    assert open_corpus("./notes", workspace) != first


def test_a_snapshot_keeps_its_split(corpus, workspace):
    assert open_corpus("small", workspace, validation_fraction=0.1) == corpus
    with pytest.raises(ValueError, match=r"split with validation_fraction 0.1, not 0.2"):
        open_corpus("small", workspace, validation_fraction=0.2)


def test_one_long_text_holds_out_its_tail():
    text = "".join(chr(0x4E00 + i) for i in range(1003))
    parts, how = split_documents([text], 0.1, seed=0)
    assert parts == {"train": [text[:902]], "validation": [text[902:]]} and how["kind"] == "contiguous-tail"
    parts, how = split_documents([text] * 3, 0.1, seed=0)  # each is more than a tenth
    assert [len(t) for t in parts["validation"]] == [101] * 3 and how["tails"] == 3


def test_a_book_among_notes_does_not_upset_the_shares():
    notes = [f"note {i:03}" for i in range(100)]
    for seed in range(5):
        parts, how = split_documents([*notes, "x" * 10_000], 0.1, seed)
        assert [len(parts[name]) for name in ("train", "validation")] == [91, 11]
        assert (len(parts["train"][-1]), len(parts["validation"][-1])) == (9000, 1000)
        assert how == {"kind": "by-document", "seed": seed, "fraction": 0.1, "tails": 1}


def test_the_split_by_document_is_seeded():
    documents = [str(i) for i in range(100)]
    held_out = [split_documents(documents, 0.2, seed)[0]["validation"] for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2] and len(held_out[0]) == 20
    assert held_out[0] == sorted(held_out[0], key=int)


@pytest.mark.parametrize(("documents", "fraction"), [(["x"], 0.1), (["abc"], 0.0), (["abc"], 1.0)])
def test_what_cannot_be_split_is_refused(documents, fraction):
    with pytest.raises(ValueError, match=r"too few to hold out|between 0 and 1"):
        split_documents(documents, fraction, 0)


def test_tales_know_their_floor(few_tales, workspace):
    corpus = open_corpus("tales", workspace)
    rows = corpus.split("validation")
    assert len(rows) == 10 and len(corpus.split("train")) == 40
    nats = -math.fsum(log_prob(text) for text in rows["text"])  # by the grammar's reader, from the text alone
    size = sum(len(text.encode()) for text in rows["text"])
    floor = corpus.floor["validation"]
    assert floor["nats"] == pytest.approx(nats) and floor["nats_per_document"] == pytest.approx(nats / 10)
    assert floor["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert rows["log_prob"][0] == pytest.approx(log_prob(rows["text"][0]))
    assert set(rows["text"]).isdisjoint(corpus.split("train")["text"])


def test_tales_are_made_once_and_again_when_the_grammar_changes(few_tales, workspace, monkeypatch, capsys):
    first = open_corpus("tales", workspace)
    capsys.readouterr()
    assert open_corpus("tales", workspace) == first and capsys.readouterr().err == ""
    assert open_corpus("tales", workspace, validation_fraction=0.5).name != "tales"
    real = builtin.tales
    monkeypatch.setattr(builtin, "tales", lambda count, seed: real(count, seed + 1000))
    assert open_corpus("tales", workspace).name.startswith("tales-")


def test_the_published_texts(published_texts, workspace):
    corpus = open_corpus("shakespeare", workspace)
    whole = (published_texts / "tiny_shakespeare.txt").read_bytes().decode()
    assert "".join(corpus.texts("train")) + "".join(corpus.texts("validation")) == whole
    assert len(next(corpus.texts("train"))) == 1_003_854  # nanoGPT's split of the same file
    assert open_corpus("verdict", workspace).manifest["sources"][0]["sha256"].startswith("b41e41a6")


def test_a_published_text_that_is_another_is_refused(write, workspace, monkeypatch):
    monkeypatch.setenv("LLM_LAB_CORPORA", str(write("the_verdict.txt", "not by Wharton").parent))
    with pytest.raises(ValueError, match=r"is not the published the_verdict\.txt"):
        open_corpus("verdict", workspace)
    assert not list(workspace.room("corpora").iterdir())


def test_no_network_is_one_clear_sentence(workspace, monkeypatch):
    monkeypatch.delenv("LLM_LAB_CORPORA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set: put the_verdict.txt .* in \$LLM_LAB_CORPORA"):
        open_corpus("verdict", workspace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ValueError, match=r"cannot be reached .*LLM_LAB_CORPORA"):
        open_corpus("verdict", workspace)


def test_names(write, workspace):
    with pytest.raises(ValueError, match=r"no corpus and no file or folder 'shakespear'; did you mean 'shakespeare'"):
        open_corpus("shakespear", workspace)
    with pytest.raises(ValueError, match="is a built-in corpus"):
        add_corpus("tales", [write("a.txt", "text " * 9)], workspace)
    with pytest.raises(ValueError, match="is a corpus on the Hub"):
        add_corpus("c4", [write("a.txt", "text " * 9)], workspace)
    with pytest.raises(ValueError, match="may hold letters"):
        add_corpus("../out", [write("a.txt", "text " * 9)], workspace)
    assert open_corpus(write("tales.txt", "text " * 9), workspace).name == "my-tales"
    assert open_corpus(write("My Book (1).txt", "text " * 9), workspace).name == "My-Book-1"


def test_commands(write, workspace, capsys, monkeypatch):
    at = ("--workspace", str(workspace.root))
    code, out, err = run(capsys, monkeypatch, "add", "mine", str(write("a.txt", "Some words. " * 40)), *at)
    assert code == 0 and "mine: 1 + 1 documents" in out and "made in" in err
    code, out, _ = run(capsys, monkeypatch, "list", *at)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [*BUILT_IN, *HUB, "mine"]
    assert "not fetched yet: allenai/c4, 364,868,892 documents" in out and "ODC-BY" in out
    code, out, _ = run(capsys, monkeypatch, "show", "mine", *at)
    assert code == 0 and "contiguous-tail" in out and "Some words." in out
    code, out, _ = run(capsys, monkeypatch, "show", "mine", "--json", *at)
    assert json.loads(out)["splits"]["train"]["characters"] == 432
    code, out, _ = run(capsys, monkeypatch, "show", "mine", "--statistics", *at)
    assert code == 0 and "distinct words" in out
    add = run(capsys, monkeypatch, "add", "other", str(write("b.txt", "Other words. " * 40)), *at)[0]
    code, out, _ = run(capsys, monkeypatch, "mix", "both", "mine=1", "other=1", "--bytes", "0.4kB", *at)
    assert add == code == 0 and "both: 2 + 2 documents" in out
    code, out, _ = run(capsys, monkeypatch, "show", "both", *at)
    assert code == 0 and "mixed" in out
    code, out, _ = run(capsys, monkeypatch, "list", "--json", *at)
    assert [row["name"] for row in json.loads(out)][-3:] == ["both", "mine", "other"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "nothing"], "no corpus and no file or folder 'nothing'"),
        (["fetch", "verdic"], "did you mean 'verdict'?"),
        (["fetch", "tinystorys"], "did you mean 'tinystories'?"),
        (["fetch", "c4", "--bytes", "much"], "'much' should be a number of bytes, such as 20MB"),
        (["fetch", "c4", "--config", "fr"], "for another, name hf:allenai/c4"),
        (["fetch", "tales", "--documents", "3"], "not fetched from the Hub, so it has no documents to choose"),
        (["mix", "both", "tales"], "should be a corpus and its weight"),
        (["add", "mine", "missing.txt"], "missing.txt: no such file or folder"),
        (["add", "mine"], "required: PATH"),
        (["lst"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(tmp_path / "workspace"))
    code, out, err = run(capsys, monkeypatch, *args)
    assert code == 2 and out == "" and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_torn_manifest_is_named(corpus, workspace):
    (corpus.path / "manifest.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="small is not a corpus snapshot"):
        open_corpus("small", workspace)
    shutil.rmtree(corpus.path)
