"""What is shown of a tokenizer, against the tokenizer itself and against counts made by hand."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data.console import cli
from data.tokenizer import Tokenizer, load_tokenizer, open_tokenizer, train_version
from data.tokenizer_cli import main
from data.tokenizer_kinds import KINDS, LARGEST, RESERVED, train_tokenizer
from data.tokenizer_measures import compare_on
from data.tokenizer_report import (
    BYTE_OF,
    Cut,
    Entry,
    Vocabulary,
    cut,
    differences,
    list_tokenizers,
    open_vocabulary,
)

TRAINING = ['The fox said: "I don\'t know" 3,141 times.\n', "naïve café\r\n\tand  more", "你好, мир! 🦊"] * 9
HARD = [
    "<|endoftext|>",
    "a<|im_start|>user",
    "<0x41>",
    "two  spaces\n\n",
    "你好 🦊👩‍👧",
    "e\u0301 é",
    "nul\0\x7f",
    "Ġ▁Ċ\U0010ffff",
]


def vocabulary_of(backend: Backend, **special) -> Vocabulary:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    return Vocabulary(Tokenizer(tokenizer, "made", None, ""))


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    return {kind: Vocabulary(Tokenizer(train_tokenizer(kind, TRAINING, 300), kind, None, "")) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_tokens_hold_the_text_to_the_byte(vocabularies, kind, text):
    vocabulary = vocabularies[kind]
    found = cut(vocabulary, text)
    assert found.exact and b"".join(token.data for token in found.tokens) == text.encode()
    plain = vocabulary.tokenizer.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert [token.id for token in found.tokens] == plain
    assert (found.characters, found.bytes) == (len(text), len(text.encode()))
    assert found.bytes_per_token == pytest.approx(len(text.encode()) / len(plain))


@given(text=st.text(min_size=1))
@settings(max_examples=200, deadline=None)
def test_the_alphabet_of_bytes_is_gpt2s(text):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))
    assert bytes(BYTE_OF[sign] for sign in spelled) == text.encode()
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet()) and sorted(BYTE_OF.values()) == list(range(256))


def test_an_entry_says_what_it_stands_for(vocabularies):
    entries = vocabularies["char"].entries
    reserved = [entry for entry in entries.values() if entry.reserved]
    assert [entry.piece for entry in reserved] == RESERVED and [entry.id for entry in reserved] == [0, 1, 2, 3]
    by_piece = {entry.piece: entry for entry in entries.values()}
    assert by_piece["é"].text == "é" and not by_piece["é"].spells_bytes
    assert by_piece["<0x41>"].data == b"A" and by_piece["<0x41>"].spells_bytes  # no "A" in the training text
    assert by_piece["<0xD0>"].text == "\\xd0" and by_piece["<0xD0>"].spells_bytes
    bpe = {entry.piece: entry for entry in vocabularies["bpe"].entries.values()}
    assert bpe["Ġ"].data == b" " and bpe["Ċ"].text == "\n" and bpe["Ã"].text == "\\xc3" and bpe["Ã"].spells_bytes


def test_sentencepiece_spelling():
    """As in Llama: a space before the text, `▁` for spaces, `<0xNN>` for what has no entry."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "▁h"]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [("▁", "h")], unk_token="<unk>", byte_fallback=True
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    found = cut(vocabulary_of(backend, eos_token="</s>"), "hi hié")
    assert [token.text for token in found.tokens] == ["h", "i", " h", "i", "\\xc3", "\\xa9"] and found.exact
    assert [token.spells_bytes for token in found.tokens] == [False, False, False, False, True, True]


def words(*known: str) -> Vocabulary:
    entries = ["<unk>", "</s>", *known]
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(entries)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return vocabulary_of(backend, unk_token="<unk>", eos_token="</s>")


def test_shares_of_unknown_and_spelled_tokens(vocabularies):
    row = compare_on(words("red", "ball", " "), ["red ball red zebra"])  # seven tokens, one of them unknown
    assert (row["tokens"], row["unknown_share"], row["byte_share"]) == (7, pytest.approx(1 / 7), 0)
    row = compare_on(vocabularies["char"], ["foxж", "ш"])  # three characters, then two bytes for each of two letters
    assert (row["tokens"], row["bytes"], row["words"]) == (7, 7, 2)
    assert (row["unknown_share"], row["byte_share"]) == (0, pytest.approx(4 / 7))
    assert row["example"] == ["f", "o", "x", "\\xd0", "\\xb6"]


def test_a_text_that_is_changed_is_not_exact():
    assert not cut(words("red"), "blue").exact
    backend = Backend(models.WordLevel({"red": 0, "</s>": 1}))
    backend.normalizer = normalizers.Lowercase()
    assert not cut(vocabulary_of(backend, eos_token="</s>"), "RED").exact


def made(*pieces: str) -> Cut:
    tokens = [Entry(i, piece, piece.encode(), False, False) for i, piece in enumerate(pieces)]
    text = "".join(pieces)
    return Cut(tokens, len(text), len(text.encode()), True)


def spelled(pairs) -> list:
    return [([token.text for token in ours], [token.text for token in theirs]) for ours, theirs in pairs]


def test_differences_by_hand():
    assert spelled(differences(made("ab", "cd", "e"), made("a", "bc", "d", "e"))) == [(["ab", "cd"], ["a", "bc", "d"])]
    assert spelled(differences(made("a", "é", "b"), made("aé", "b"))) == [(["a", "é"], ["aé"])]
    assert differences(made("ab", "c"), made("ab", "c")) == []


@given(text=st.text("abcé", min_size=1, max_size=30), data=st.data())
@settings(deadline=None)
def test_stretches_begin_and_end_where_both_cut(text, data):
    places = st.sets(st.integers(1, max(1, len(text) - 1)))
    left, right = sorted(data.draw(places)), sorted(data.draw(places))

    def pieces(at):
        ends = [*[place for place in at if place < len(text)], len(text)]
        return made(*(text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)))

    found = differences(pieces(left), pieces(right))
    apart = {place for place in set(left) ^ set(right) if place < len(text)}
    inner = sum(len(ours) + len(theirs) - 2 for ours, theirs in found)
    assert inner == len(apart)  # between common places, every cut is one that the other has not
    assert all("".join(t.text for t in ours) == "".join(t.text for t in theirs) for ours, theirs in found)


def test_find_by_text_spelling_and_id(vocabularies):
    vocabulary = vocabularies["bpe"]
    everything, total = vocabulary.find("", 0, 1000)
    assert total == len(everything) == 300 and [entry.id for entry in everything] == list(range(300))
    assert vocabulary.find("", 290, 25) == (everything[290:], 300)
    assert [entry.id for entry in vocabulary.find("287")[0]] == [287]
    found = vocabulary.find(" fo")[0]
    assert found and all(" fo" in entry.text for entry in found)
    assert {entry.id for entry in found} == {entry.id for entry in vocabulary.find("Ġfo")[0]}
    assert vocabulary.find("no such piece") == ([], 0)


@pytest.mark.parametrize(("text", "message"), [("", "the text is empty"), ("a\ud800", "half a surrogate pair")])
def test_what_cannot_be_cut(vocabularies, text, message):
    with pytest.raises(ValueError, match=message):
        cut(vocabularies["bpe"], text)


def test_tokenizers_of_the_workspace(corpus, workspace, monkeypatch):
    assert list_tokenizers(workspace) == [] and not (workspace.root / "tokenizers").exists()
    train_version("one", "bpe", corpus, 280, workspace)
    train_version("one", "bpe", corpus, 290, workspace)
    torn = workspace.room("tokenizers") / "torn@v1"
    torn.mkdir()
    (torn / "report.json").write_text("{")
    rows = list_tokenizers(workspace)
    assert [(row["name"], row["parent"], row["vocab_size"]) for row in rows] == [
        ("one@v2", "one@v1", 290),
        ("one@v1", None, 280),
    ]


def test_an_open_vocabulary_is_kept_until_its_file_changes(corpus, workspace):
    with pytest.raises(ValueError, match="no tokenizer 'one'"):
        open_vocabulary("one", workspace)
    train_version("one", "bpe", corpus, 280, workspace)
    first = open_vocabulary("one", workspace)
    assert open_vocabulary("one", workspace) is first and len(first.entries) == 280
    train_version("one", "bpe", corpus, 290, workspace)
    assert len(open_vocabulary("one", workspace).entries) == 290
    assert open_vocabulary("one@v1", workspace).tokenizer.sha256 == load_tokenizer("one@v1", workspace).sha256


@pytest.mark.parametrize("size", [3, 10**9])
def test_sizes_that_no_tokenizer_has(corpus, workspace, size):
    with pytest.raises(ValueError, match=f"vocab_size {size:,} is too (small|large)"):
        open_tokenizer("bpe", corpus, size, workspace)
    assert not list(workspace.room("tokenizers").iterdir()) and LARGEST < 10**9


@pytest.mark.parametrize("name", ["bpe", "../out", "a b"])
def test_names_that_no_tokenizer_has(corpus, workspace, name):
    with pytest.raises(ValueError, match=r"is a kind of tokenizer|may hold letters"):
        train_version(name, "bpe", corpus, 280, workspace)


def test_code_that_a_tokenizer_brings_along_is_not_run(corpus, workspace, tmp_path):
    open_tokenizer("bpe", corpus, 280, workspace).tokenizer.save_pretrained(tmp_path / "foreign")
    config = json.loads((tmp_path / "foreign" / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    (tmp_path / "foreign" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "foreign" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ValueError, match="holds no tokenizer that transformers can open"):
        load_tokenizer(str(tmp_path / "foreign"), workspace)
    assert not (tmp_path / "ran").exists()


def test_the_terminal_says_the_shares(corpus, workspace, capsys, monkeypatch):
    train_version("chars", "char", corpus, 0, workspace)
    command = ["tokenizer", "compare", "chars", "chars", "--text", "жж", "--workspace", str(workspace.root)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        cli(main)
    out = capsys.readouterr().out
    assert "as bytes" in out and "100.00%" in out and "\\xd0|\\xb6" in out
