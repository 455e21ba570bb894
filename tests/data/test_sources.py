"""Files and folders to documents: exact, in a fixed order, and clear about what is wrong."""

import hashlib
import time

import pyarrow
import pyarrow.parquet
import pytest

from data.sources import read_sources


def parquet(write, name: str, columns: dict):
    path = write(name, b"")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    "text", ["plain\n", "a\r\nb\rc", "  two  spaces ", "tab\tnul\0end", "你好 🦊 e\u0301", "\u2028x\x85"]
)
def test_text_is_kept_to_the_last_character(write, text):
    assert read_sources([write("a.txt", text)]).documents == [text]
    assert read_sources([write("a.jsonl", [{"text": text}])]).documents == [text]
    assert read_sources([parquet(write, "a.parquet", {"text": [text]})]).documents == [text]


def test_a_byte_order_mark_is_taken_off(write):
    assert read_sources([write("a.txt", b"\xef\xbb\xbfhello")]).documents == ["hello"]


def test_a_folder_is_read_in_order_of_names(write, tmp_path):
    write("mine/b/two.md", "two")
    write("mine/a.txt", "one")
    write("mine/c.JSONL", [{"text": "three"}, {"text": "four"}])
    parquet(write, "mine/d.parquet", {"text": ["five", None]})
    for name in ("mine/.hidden/x.txt", "mine/.secret.txt", "mine/picture.png", "mine/Makefile"):
        write(name, "not this")
    found = read_sources([tmp_path / "mine"])
    assert found.documents == ["one", "two", "three", "four", "five"]
    assert [source["name"] for source in found.sources] == [
        "mine/a.txt",
        "mine/b/two.md",
        "mine/c.JSONL",
        "mine/d.parquet",
    ]
    assert found.sources[0] == {"name": "mine/a.txt", "bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()}
    assert found.skipped == {"hidden files": 2, ".png": 1, "files without suffix": 1} and found.empty == 1
    assert found.left_out() == "2 hidden files, 1 files without suffix, 1 .png, 1 empty documents"


def test_the_field_is_text_or_the_only_string_or_the_one_named(write):
    assert read_sources([write("a.jsonl", [{"n": 1, "body": "only"}])]).documents == ["only"]
    two = write("b.jsonl", [{"title": "t", "body": "b"}, {"title": "u", "body": None}])
    assert read_sources([two], "body").documents == ["b"]
    with pytest.raises(ValueError, match=r"b.jsonl, line 1: no field 'text' among title, body; name one with --field"):
        read_sources([two])
    table = parquet(write, "c.parquet", {"n": [1], "title": ["t"]})
    assert read_sources([table]).documents == ["t"]
    with pytest.raises(ValueError, match=r"c.parquet: the column 'n' holds int64, not text"):
        read_sources([table], "n")


MISTAKES = {
    "not UTF-8: byte 0xe9 at offset 7": ("latin.txt", "the caf\u00e9".encode("latin-1")),
    "offset 0; it looks like UTF-16": ("wide.txt", "hello".encode("utf-16")),
    "byte 0xff at offset 4": ("marked.txt", b"\xef\xbb\xbfa\xff"),
    "no text in it": ("empty.txt", b""),
    "1 empty documents": ("blank.md", b" \n\n"),
    "no reader for .pdf": ("paper.pdf", b"%PDF"),
    "line 2: not JSON": ("broken.jsonl", b'{"text": "a"}\n{"text": '),
    "line 1: a JSON object is wanted": ("list.jsonl", b'["a"]'),
    "line 1: the field 'text' holds a int": ("number.jsonl", b'{"text": 3}'),
    "half a surrogate pair": ("half.jsonl", b'{"text": "a\\ud83d"}'),
    "not a Parquet file": ("fake.parquet", b"PAR2"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_name_the_file_and_the_place(write, message):
    name, content = MISTAKES[message]
    path = write(name, content)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")) as caught:
        read_sources([path])
    assert name in str(caught.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.txt: no such file or folder"):
        read_sources([tmp_path / "nowhere.txt"])


def test_twenty_megabytes_of_mixed_files(write, tmp_path):
    page = "A line of some length, as letters have it, and another word.\n" * 80
    for i in range(1000):
        write(f"mine/{i}.txt", page)
    for i in range(30):
        write(f"mine/{i}.jsonl", [{"text": page}] * 100)
    started = time.perf_counter()
    found = read_sources([tmp_path / "mine"])
    assert sum(source["bytes"] for source in found.sources) > 19e6
    assert len(found.documents) == 4000 and time.perf_counter() - started < 10
