"""What is shown of a corpus is what is in it; looking writes nothing, and deleting asks the runs first."""

import json
import shlex
import sys
from itertools import islice

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from data import corpora_cli, preview
from data.console import cli
from data.corpora import add_corpus, list_corpora, snapshot
from data.snapshots import SPLITS, delete_snapshot, write_snapshot
from data.workspace import Workspace, write_json

WORDS = ["Apple", "pear", "ÄPFEL", "plum.*", "apple pie"]


@pytest.fixture
def fruit(workspace):
    """A hundred documents in groups of seven, as a large corpus has several."""
    texts = [f"{i} {WORDS[i % 5]} {'x' * (i % 13)}" for i in range(100)]
    path = workspace.room("corpora") / "fruit"
    split = {"kind": "by-document", "seed": 0, "fraction": 0.1, "tails": 0}
    corpus = write_snapshot(path, {"train": texts, "validation": ["one apple"]}, split, [], "key", "none")
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path / "train.parquet", row_group_size=7)
    return corpus


def walk(corpus, search: str = "", size: int = 5) -> list[preview.Page]:
    """Every page, as somebody finds them who always goes on."""
    pages = [preview.page(corpus, "train", 0, search, size)]
    while pages[-1].next is not None:
        pages.append(preview.page(corpus, "train", pages[-1].next, search, size))
    return pages


def test_documents_begin_anywhere(fruit):
    texts = list(fruit.texts("train"))
    for start in range(100):
        first, batch = next(preview.documents(fruit, "train", start))
        assert first == start and batch[0].as_py() == texts[start]
    assert sum(len(batch) for _, batch in preview.documents(fruit, "train", 33)) == 67


def test_what_lies_before_is_not_read(fruit):
    """The first group's bytes are destroyed: the last page does not notice, the first one cannot be had."""
    path = fruit.path / "train.parquet"
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    assert [one.number for one in preview.page(fruit, "train", 96).excerpts] == [96, 97, 98, 99]
    with pytest.raises(OSError):
        preview.page(fruit, "train", 0)


@pytest.mark.parametrize("size", [1, 5, 7, 100])
def test_pages_hold_every_document_once(fruit, size):
    shown = [one for page in walk(fruit, size=size) for one in page.excerpts]
    assert [one.number for one in shown] == list(range(100))
    assert [one.text for one in shown] == list(fruit.texts("train")) and all(one.is_whole for one in shown)


@pytest.mark.parametrize("search", ["apple", "APPLE", "äpfel", "plum.*", "zebra", "9 "])
def test_search_finds_what_holds_the_words_in_any_case(fruit, search):
    wanted = [i for i, text in enumerate(fruit.texts("train")) if search.lower() in text.lower()]
    assert [one.number for page in walk(fruit, search, 3) for one in page.excerpts] == wanted


def test_a_long_search_stops_and_goes_on(fruit, monkeypatch):
    monkeypatch.setattr(preview, "SEARCH_BYTES", 50)
    monkeypatch.setattr(preview, "BATCH", 8)
    pages = walk(fruit, "99 ")
    assert len(pages) > 5 and [len(page.excerpts) for page in pages] == [0] * (len(pages) - 1) + [1]
    assert sum(page.looked for page in pages) == 100


def test_a_long_document_is_shown_in_part():
    text = "a" * 5000 + "needle" + "b" * 5000
    begin = preview.excerpt(3, text)
    assert begin.text == "a" * preview.SHOWN and begin.begin == 0 and not begin.is_whole
    around = preview.excerpt(3, text, "NEEDLE")
    assert around.begin == 5000 - preview.BEFORE and "needle" in around.text and around.characters == 10_006
    at_the_end = preview.excerpt(3, text + "end", "end")
    assert at_the_end.text.endswith("end") and len(at_the_end.text) == preview.SHOWN


@pytest.mark.parametrize("start", [-1, 100, 10**9])
def test_a_document_that_is_not_there_is_named(fruit, start):
    with pytest.raises(ValueError, match="fruit has 1 to 100 in train"):
        preview.page(fruit, "train", start)


def test_lengths_are_characters(corpus):
    for split in SPLITS:
        assert preview.lengths(corpus, split).tolist() == [len(text) for text in corpus.texts(split)]
    assert any(len(text) != len(text.encode()) for text in corpus.texts("train"))


@pytest.mark.parametrize("counts", [[7], [7, 7, 7], [1, 2, 3, 4], list(range(10, 400, 3)), [0, 1000]])
def test_a_histogram_counts_every_document(counts):
    drawn = preview.histogram(np.array(counts))
    widths = np.diff(drawn.edges)
    assert drawn.counts.sum() == len(counts) and drawn.beyond == 0
    assert len(drawn.counts) <= preview.BARS + 1 and (widths == widths[0]).all() and widths[0] >= 1
    for low, high, count in zip(drawn.edges[:-1], drawn.edges[1:], drawn.counts, strict=True):
        assert count == sum(low <= length < high or length == high == drawn.edges[-1] for length in counts)


def test_a_giant_does_not_flatten_the_crowd():
    drawn = preview.histogram(np.array([*range(100, 300)] * 5 + [1_000_000]))
    assert drawn.beyond >= 1 and drawn.counts.sum() + drawn.beyond == 1001 and drawn.edges[-1] < 400


def test_the_command_shown_makes_the_same_corpus(write, workspace, tmp_path, monkeypatch, capsys):
    rows = [{"body": f"row {i} of many", "id": str(i)} for i in range(40)]
    files = [write("my rows.jsonl", rows), write("b.txt", "text " * 50)]
    made = add_corpus("mine", files, workspace, 0.25, 3, "body")
    command = shlex.split(preview.commands(made, workspace)[0])
    assert command[:3] == ["python", "-m", "data.corpora"]
    at = command.index("--workspace")
    assert command[at + 1] == str(workspace.root)
    command[at + 1] = str(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command[2:])
    with pytest.raises(SystemExit):
        cli(corpora_cli.main)
    again = snapshot("mine", Workspace(tmp_path / "elsewhere"))
    assert again.sha256 == made.sha256 and again.manifest["made_from"] == made.manifest["made_from"]
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(workspace.root))
    assert preview.commands(made, workspace)[1] == "python -m data.corpora show mine"


def test_looking_writes_nothing(workspace):
    assert [row["made"] for row in list_corpora(workspace)] == [False] * len(list_corpora(workspace))
    assert preview.stamp(workspace, "corpora") == 0 and not workspace.root.exists()


def test_the_list_counts_and_survives_a_damaged_neighbour(corpus, workspace):
    before = preview.stamp(workspace, "corpora")
    broken = workspace.room("corpora") / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text('{"name": ')
    rows = {row["name"]: row for row in list_corpora(workspace)}
    assert rows["broken"]["about"].startswith("cannot be read") and rows["broken"]["documents"] is None
    texts = [text for split in SPLITS for text in corpus.texts(split)]
    assert rows["small"]["documents"] == 40 and rows["small"]["bytes"] == sum(len(t.encode()) for t in texts)
    assert rows["small"]["floor_bits_per_byte"] is None and rows["tales"]["documents"] is None
    assert preview.stamp(workspace, "corpora") != before


def run_json(workspace, name: str, **fields) -> None:
    path = workspace.room("runs") / name
    path.mkdir()
    write_json(path / "run.json", {"inputs": {}, "ended_at": None, **fields})


def test_a_snapshot_that_runs_refer_to_is_kept(corpus, workspace):
    this = {"name": "small", "sha256": corpus.sha256}
    run_json(workspace, "other-000001", inputs={"corpus": {**this, "sha256": "0" * 64}})
    run_json(workspace, "mine-000002", inputs={"corpus": this}, ended_at="yesterday")
    with pytest.raises(ValueError, match=r"small is kept, because runs refer to it: mine-000002; delete"):
        delete_snapshot(corpus, workspace)
    assert list(corpus.texts("train"))


def test_a_run_that_waits_for_its_data_counts_too(corpus, workspace):
    run_json(workspace, "waits-000001")
    recipe = workspace.root / "runs" / "waits-000001" / "recipe.yaml"
    recipe.write_text("data:\n  corpus: small\n")
    with pytest.raises(ValueError, match="waits-000001"):
        delete_snapshot(corpus, workspace)
    recipe.write_text("data:\n  corpus: tales\n")
    delete_snapshot(corpus, workspace)
    assert not list(workspace.room("corpora").iterdir())


def test_delete_from_the_terminal(corpus, workspace, monkeypatch, capsys):
    torn = workspace.room("runs") / "torn-000001"
    torn.mkdir()
    (torn / "run.json").write_text("{")  # what cannot be read refers to nothing

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["corpora", *args, "--workspace", str(workspace.root)])
        with pytest.raises(SystemExit) as end:
            cli(corpora_cli.main)
        return end.value.code, *capsys.readouterr()

    code, _, err = run("delete", "smal")
    assert code == 2 and "did you mean 'small'?" in err
    code, out, _ = run("delete", "small", "--json")
    assert code == 0 and json.loads(out) == {"deleted": "small"} and not corpus.path.exists()
    assert run("delete", "small")[2].endswith("there are none yet\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation_fraction": 7}, "validation_fraction 7 should be a share"),
        ({"validation_fraction": float("nan")}, "should be a share"),
        ({"seed": -1}, "the seed of a split is 0 or more"),
        ({"name": "../out"}, "may hold letters"),
    ],
)
def test_mistakes_are_told_before_the_files_are_read(workspace, tmp_path, change, message):
    given = {"name": "mine", "paths": [tmp_path / "not there.txt"], "workspace": workspace, **change}
    with pytest.raises(ValueError, match=message):
        add_corpus(**given)


def test_what_was_made_and_left_out_can_be_said_elsewhere(write, workspace, capsys):
    said = []
    files = [write("a.jsonl", [*({"text": f"line {i}"} for i in islice(range(99), 40)), {"text": " "}])]
    add_corpus("mine", files, workspace, say=said.append)
    assert len(said) == 1 and said[0].startswith("mine: 36 + 4 documents") and said[0].endswith("1 empty documents")
    assert capsys.readouterr().err == ""
