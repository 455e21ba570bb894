"""Tokenizers: exact on any Unicode text, the same for the same text, and at home in transformers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from data import encoding
from data.console import cli
from data.corpora import add_corpus, open_corpus
from data.encoding import Encoder
from data.tokenizer import open_tokenizer
from data.tokenizer_cli import main
from data.tokenizer_kinds import KINDS, RESERVED, train_tokenizer

TRAINING = [
    'The fox said: "I don\'t know" 3,141 times.\n',
    "naïve café, naïve café\r\n\tand  more",
    "你好, мир! 🦊",
] * 9
HARD = [
    "",
    "<|endoftext|>",
    "a<|im_start|>user<|pad|>b",
    "<0x41><unk>",
    "two  spaces ,  and n 't .",
    "\n\n \r \r\n\t",
    " lead and trail ",
    "🦊👩‍👩‍👧🏽",
    "e\u0301 é ﬁ Å",
    "nul\0\x01\x7f",
    "\u2028\u2029\x85\ufeff",
    "Ġ▁Ċ",
    "\U0010ffff\ue000",
]
KIND_NAMES = list(KINDS)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """One tokenizer a kind, saved and opened by AutoTokenizer."""
    opened = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        train_tokenizer(kind, TRAINING, 300).save_pretrained(folder)
        opened[kind] = AutoTokenizer.from_pretrained(folder)
    return opened


def round_trip(tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert Encoder(tokenizer.backend_tokenizer).encode(text) == ids
    assert not set(ids) & set(range(len(RESERVED)))


@pytest.mark.parametrize("kind", KIND_NAMES)
@pytest.mark.parametrize("text", HARD)
def test_hard_texts_come_back(trained, kind, text):
    round_trip(trained[kind], text)


@pytest.mark.parametrize("kind", KIND_NAMES)
@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(trained, kind, text):
    round_trip(trained[kind], text)


@pytest.mark.parametrize("kind", KIND_NAMES)
@given(text=st.text(alphabet=st.sampled_from("ab1',.<|> \n\t\r\u00a0\u2003\x1c\x85é🦊"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_cutting_a_long_text_changes_nothing(trained, kind, text):
    encoder = Encoder(trained[kind].backend_tokenizer)
    whole = encoder.encode(text)
    piece, encoding.PIECE = encoding.PIECE, 3
    try:
        pieces = list(encoder.pieces(text))
        (ids, ends), *rest = encoder.chunks([text, text], end=1)
    finally:
        encoding.PIECE = piece
    assert "".join(part for part, _ in pieces) == text and [last for _, last in pieces].count(True) == 1
    assert ids.tolist() == [*whole, 1, *whole, 1] and not rest
    assert ends.tolist() == [len(whole) + 1, 2 * len(whole) + 2]


def test_long_texts_are_cut_and_foreign_tokenizers_left_whole(trained):
    text = "some words, more words\n" * 5000
    assert all(len(list(Encoder(t.backend_tokenizer).pieces(text))) > 5 for t in trained.values())
    state = json.loads(trained["bpe"].backend_tokenizer.to_str())
    state["pre_tokenizer"]["add_prefix_space"] = True  # a cut would now add a space
    assert len(list(Encoder(Backend.from_str(json.dumps(state))).pieces(text))) == 1


def test_characters_are_entries_and_the_rest_is_bytes(trained):
    tokenizer = trained["char"]
    characters = set("".join(TRAINING))
    assert characters <= set(tokenizer.get_vocab())
    assert len(tokenizer.encode("naïve 你好")) == len("naïve 你好")
    assert len(tokenizer.encode("ж")) == 2 and len(tokenizer.encode("~")) == 1  # bytes of UTF-8
    assert len(train_tokenizer("char", ["any ASCII text"], 0)) == 4 + 128 + 115


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_what_transformers_expects(trained, kind):
    tokenizer = trained[kind]
    assert tokenizer.convert_tokens_to_ids(RESERVED) == [0, 1, 2, 3]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 1)
    assert tokenizer.model_max_length > 1e9 and tokenizer.is_fast and tokenizer.padding_side == "left"
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    turns = [{"role": "user", "content": "hi  there"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhi  there<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    assert (ids.count(2), ids.count(3)) == (1, 1)
    batch = tokenizer(["a", "a b c"], padding=True)
    assert batch["input_ids"][0][0] == 0 and len(set(map(len, batch["input_ids"]))) == 1


def test_training_is_the_same_in_another_process(tmp_path):
    """Byte for byte, on one thread and on two; hash maps are seeded by the process."""
    script = (
        "import sys, json; from data.tokenizer_kinds import *\n"
        "texts = json.load(open(sys.argv[1]))\n"
        "for kind in KINDS: train_tokenizer(kind, texts, 400).save_pretrained(sys.argv[2] + kind)"
    )
    texts = [f"{text} {i * 7919 % 1000} words of number {i}" for i, text in enumerate(TRAINING * 10)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    for threads in ("1", "2"):
        command = [sys.executable, "-c", script, str(tmp_path / "texts.json"), f"{tmp_path}/{threads}"]
        environment = {"PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, check=True, env=environment)
    for kind in KINDS:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / f"1{kind}" / name).read_bytes() == (tmp_path / f"2{kind}" / name).read_bytes()


def test_versions_follow_corpus_and_settings(write, workspace, corpus, texts, capsys):
    first = open_tokenizer("bpe", corpus, 300, workspace)
    assert first.name == "small-bpe-300@v1" and first.path.is_dir() and "trained in" in capsys.readouterr().err
    assert open_tokenizer("bpe", corpus, 300, workspace).sha256 == first.sha256
    assert capsys.readouterr().err == ""
    assert open_tokenizer("bpe", corpus, 301, workspace).name == "small-bpe-301@v1"
    assert open_tokenizer("char", corpus, 300, workspace).name == "small-char@v1"
    (workspace.room("corpora") / "small").rename(workspace.root / "set aside")
    other = add_corpus("small", [write("other.jsonl", [{"text": text[::-1]} for text in texts])], workspace)
    second = open_tokenizer("bpe", other, 300, workspace)
    assert second.name == "small-bpe-300@v2" and second.report["parent"] == "small-bpe-300@v1"
    assert second.sha256 != first.sha256
    assert open_tokenizer("small-bpe-300", corpus, 0, workspace).name == "small-bpe-300@v2"
    assert open_tokenizer("small-bpe-300@v1", corpus, 0, workspace).sha256 == first.sha256


def test_a_report_counts_what_the_tokenizer_does(corpus, workspace):
    record = open_tokenizer("bpe", corpus, 300, workspace)
    held_out = list(corpus.texts("validation"))
    count = sum(len(record.tokenizer.encode(t, split_special_tokens=True)) for t in held_out)
    assert record.report["bytes_per_token"] == pytest.approx(sum(len(t.encode()) for t in held_out) / count)
    assert record.report["tokens_per_word"] == pytest.approx(count / sum(len(t.split()) for t in held_out))
    used = {i for t in corpus.texts("train") for i in record.tokenizer.encode(t, split_special_tokens=True)}
    assert record.report["unused_entries"] == len(record.tokenizer) - len(used)
    assert record.report["corpus"]["sha256"] == corpus.sha256 and record.report["vocab_size"] == 300


def test_only_training_text_is_learnt_from(write, workspace):
    text = "a" * 900 + "z" * 100
    corpus = open_corpus(write("az.txt", text), workspace)
    vocabulary = open_tokenizer("char", corpus, 0, workspace).tokenizer.get_vocab()
    assert "a" in vocabulary and "z" not in vocabulary


def test_a_folder_keeps_its_identity_when_saved_again(corpus, workspace, tmp_path):
    """A run carries its tokenizer: the copy has the same hash, a changed one has not."""
    record = open_tokenizer("bpe", corpus, 300, workspace)
    record.tokenizer(["a", "b c d"], padding=True)  # leaves its mark in the backend, not in the identity
    record.tokenizer.save_pretrained(tmp_path / "run")
    again = open_tokenizer("small-bpe-300@v1", corpus, 0, workspace)
    again.tokenizer.save_pretrained(tmp_path / "copy")
    assert open_tokenizer(str(tmp_path / "copy"), corpus, 0, workspace).sha256 == record.sha256
    again.tokenizer.eos_token = "<|im_end|>"
    again.tokenizer.save_pretrained(tmp_path / "changed")
    assert open_tokenizer(str(tmp_path / "changed"), corpus, 0, workspace).sha256 != record.sha256


def test_mistakes(corpus, workspace, tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size 100 is too small for 'bpe': .* need 260"):
        open_tokenizer("bpe", corpus, 100, workspace)
    with pytest.raises(ValueError, match=r"no tokenizer 'bpee' .*did you mean 'bpe'"):
        open_tokenizer("bpee", corpus, 300, workspace)
    with pytest.raises(ValueError, match="holds no tokenizer that transformers can open"):
        open_tokenizer(str(tmp_path), corpus, 300, workspace)
    tokenizer = open_tokenizer("bpe", corpus, 300, workspace).tokenizer
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(ValueError, match="endless has no eos_token, which ends every document"):
        open_tokenizer(str(tmp_path / "endless"), corpus, 300, workspace)


def test_commands(corpus, workspace, capsys, monkeypatch):
    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tokenizer", *args, "--workspace", str(workspace.root)])
        with pytest.raises(SystemExit) as end:
            cli(main)
        return end.value.code, *capsys.readouterr()

    assert run("train", "one", "--corpus", "small", "--vocab-size", "280")[0] == 0
    code, out, _ = run("train", "two", "--corpus", "small", "--kind", "char", "--json")
    assert code == 0 and json.loads(out)["name"] == "two@v1"
    code, out, _ = run("report", "one")
    assert code == 0 and "one@v1: 280 entries, bpe" in out and "bytes a token" in out
    code, out, _ = run("compare", "one", "two", "--text", "fox  time", "--json")
    rows = json.loads(out)
    assert [row["bytes"] for row in rows] == [9, 9] and rows[1]["example"] == list("fox  time")
    assert "".join(rows[0]["example"]) == "fox  time"
    code, out, _ = run("compare", "one@v1", "two", "--corpus", "small")
    assert code == 0 and "tokens/word" in out
    for mistake, message in {
        ("report", "three"): "no tokenizer 'three'",
        ("compare", "one", "two", "--file", "none.txt"): "none.txt: no such file",
        ("compare", "one", "two", "--text", ""): "the text is empty",
        ("train", "bpe", "--corpus", "small"): "is a kind of tokenizer",
        ("train", "x", "--corpus", "small", "--kind", "wordpiece"): "invalid choice: 'wordpiece'",
    }.items():
        code, out, err = run(*mistake)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1
