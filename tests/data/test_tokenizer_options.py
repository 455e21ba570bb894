"""Options of a tokenizer's training: each does what it says, and what does not normalise stays exact."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data import builtin
from data.corpora import add_corpus
from data.encoding import Encoder
from data.prepare import DataRecipe, prepare
from data.tokenizer import Tokenizer, open_tokenizer, train_version
from data.tokenizer_kinds import KINDS, RESERVED, train_tokenizer
from data.tokenizer_options import Options, between, find_special, flags
from data.tokenizer_report import Vocabulary, cut

TEXTS = [
    "<|cat|> says: 3,141 words <|cat|>\n",
    "a <|dog|>b <|cat|><|dog|> 2718",
    "naïve e\u0301, ﬁne — 你好 12\u0663",
    "<|endoftext|>",
] * 9
PATTERN = r"<\|[a-z_]+\|>"
KIND_NAMES = list(KINDS)
EXACT = {
    "digits": Options(split_digits=True),
    "space": Options(prefix_space=True),
    "special": Options(special_pattern=PATTERN),
    "all": Options(special_pattern=PATTERN, split_digits=True, prefix_space=True),
}
PIECES = [
    "<|cat|>",
    "<|dog|>",
    "<|endoftext|>",
    " ",
    "  ",
    "a",
    "é",
    "e\u0301",
    "31",
    "\u0663",
    "\n",
    "你",
    "🦊",
    "<|",
    "|>",
]


def train(kind: str, options: Options, size: int = 300):
    special = find_special(TEXTS, options, RESERVED)
    return train_tokenizer(kind, TEXTS, size, options, list(special))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """By kind and option, saved and opened by AutoTokenizer."""
    opened = {}
    for kind in KINDS:
        for name, options in EXACT.items():
            folder = tmp_path_factory.mktemp(f"{kind}-{name}")
            train(kind, options).save_pretrained(folder)
            opened[kind, name] = AutoTokenizer.from_pretrained(folder)
    return opened


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", KIND_NAMES)
@given(text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_without_normalisation_any_text_comes_back(trained, kind, name, text):
    tokenizer = trained[kind, name]
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text
    assert Encoder(tokenizer.backend_tokenizer).encode(text) == ids
    assert not set(ids) & set(range(len(RESERVED)))


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_what_the_pattern_finds_is_never_split(trained, kind):
    tokenizer = trained[kind, "special"]
    assert find_special(TEXTS, EXACT["special"], RESERVED) == {"<|cat|>": 27, "<|dog|>": 18}
    pieces = tokenizer.convert_ids_to_tokens(Encoder(tokenizer.backend_tokenizer).encode("x<|cat|><|dog|>y<|pad|>"))
    assert pieces[1:3] == ["<|cat|>", "<|dog|>"] and "<|pad|>" not in pieces  # a reserved entry stays text
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer))) and len(tokenizer) <= 300
    inside = [piece for piece in tokenizer.get_vocab() if "cat" in piece and piece != "<|cat|>"]
    assert not inside  # nothing else was learnt from it


def test_the_pattern_finds_the_most_frequent_first():
    texts = ["b2 b2 a1 a1 c3 c3 c3", "d4"]
    options = Options(special_pattern=r"[a-z]\d", special_limit=3)
    assert list(find_special(texts, options, [])) == ["c3", "a1", "b2"]
    assert list(between(["x a1y a1b2"], ["a1", "b2"])) == ["x ", "y "]
    assert list(between(["abab"], ["a", "ab"])) == []  # the longest match, as the library matches
    with pytest.raises(ValueError, match=r"'q\+' finds nothing in the training text"):
        find_special(texts, Options(special_pattern="q+"), [])
    with pytest.raises(ValueError, match="finds nothing"):
        find_special(["<|pad|>"], Options(special_pattern=PATTERN), RESERVED)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_digits_are_pieces_by_themselves(trained, kind):
    repeated = ["the year 1984 and 1984 again"] * 20
    entry = re.compile(r"\D*\d\D*\d")
    vocabulary = train_tokenizer(kind, repeated, 300, Options(split_digits=True)).get_vocab()
    assert not [piece for piece in vocabulary if entry.match(piece)]
    if kind == "bpe":  # so little text teaches unigram no number either way
        assert [piece for piece in train_tokenizer(kind, repeated, 300).get_vocab() if entry.match(piece)]
    ids = Encoder(trained[kind, "digits"].backend_tokenizer).encode("3141")
    assert len(ids) == 4


def test_the_first_word_is_the_entry_it_is_within_a_text():
    texts = ["cats like cats and cats"] * 20
    with_space = train_tokenizer("bpe", texts, 290, Options(prefix_space=True))
    first, *_, last = Encoder(with_space.backend_tokenizer).encode("cats like cats")
    assert first == last
    without = Encoder(train_tokenizer("bpe", texts, 290).backend_tokenizer).encode("cats like cats")
    assert without[0] != without[-1]
    found = cut(Vocabulary(Tokenizer(with_space, "made", None, "")), "cats like")
    assert found.exact and "".join(token.text for token in found.tokens) == "cats like"


NORMALIZERS = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "lowercase": str.lower,
}


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("kind", KIND_NAMES)
@given(text=st.lists(st.sampled_from([*"aÉﬁ²Å ", "e\u0301", "<|cat|>", "你"]), max_size=10).map("".join))
@settings(max_examples=30, deadline=None)
def test_a_normalised_text_comes_back_normalised(normalised, kind, name, text):
    encoder = Encoder(normalised[kind, name].backend_tokenizer)
    assert normalised[kind, name].decode(encoder.encode(text)) == NORMALIZERS[name](text)


@pytest.fixture(scope="module")
def normalised() -> dict:
    return {(kind, name): train(kind, Options(normalization=name)) for kind in KINDS for name in NORMALIZERS}


def test_what_is_lost_is_recorded_and_nothing_else(write, workspace, texts):
    rows = [{"text": f"{text} <|fox|>"} for text in texts]
    corpus = add_corpus("small", [write("small.jsonl", rows)], workspace)
    lossy = open_tokenizer("bpe", corpus, 300, workspace, Options(normalization="lowercase"))
    held_out = list(corpus.texts("validation"))
    assert lossy.name == "small-bpe-300-lowercase@v1" and lossy.report["loses_information"]
    changed = sum(text.lower() != text for text in held_out)
    assert lossy.report["round_trip"] == {
        "texts": len(held_out), "characters": sum(map(len, held_out)), "changed": changed
    }  # fmt: skip
    assert changed
    exact = open_tokenizer("bpe", corpus, 300, workspace, Options(special_pattern=PATTERN, prefix_space=True))
    assert exact.name == "small-bpe-300-special-space@v1"
    assert exact.report["round_trip"]["changed"] == 0 and not exact.report["loses_information"]
    assert list(exact.report["special_found"]) == ["<|fox|>"]  # the corpus spells reserved entries out, too


@pytest.fixture
def signs(write, workspace):
    """A corpus with signs of its own in it."""
    rows = [{"text": f"<|user|> says {i} and <|bot|> says {i + 1}."} for i in range(40)]
    return add_corpus("signs", [write("signs.jsonl", rows)], workspace)


def test_other_options_are_another_version(signs, workspace):
    plain = train_version("one", "bpe", signs, 290, workspace)
    options = Options(special_pattern=PATTERN, special_limit=1, split_digits=True)
    second = train_version("one", "bpe", signs, 290, workspace, options)
    assert (second.name, second.report["parent"]) == ("one@v2", "one@v1")
    assert second.report["settings"] == {
        "kind": "bpe", "algorithm": 1, "vocab_size": 290, "special_pattern": PATTERN, "special_limit": 1,
        "split_digits": True,
    }  # fmt: skip
    assert list(second.report["special_found"]) == ["<|bot|>"]
    assert train_version("one", "bpe", signs, 290, workspace, options).sha256 == second.sha256
    assert train_version("one", "bpe", signs, 290, workspace, Options(special_limit=5)).sha256 == plain.sha256
    assert plain.report["settings"] == {"kind": "bpe", "algorithm": 1, "vocab_size": 290}
    assert train_version("two", "char", signs, 0, workspace, Options(split_digits=True)).report["settings"] == {
        "kind": "char", "algorithm": 1
    }  # fmt: skip


def test_a_recipe_asks_for_them(signs, workspace):
    plain = DataRecipe(corpus="signs", vocab_size=290)
    assert prepare(plain, workspace)[1].name == "signs-bpe-290@v1"
    asked = DataRecipe(
        corpus="signs", vocab_size=290, tokenizer_special_pattern=PATTERN, tokenizer_split_digits=True,
        tokenizer_normalization="nfc",
    )  # fmt: skip
    _, tokenizer, tokens = prepare(asked, workspace)
    assert tokenizer.name == "signs-bpe-290-special-digits-nfc@v1"
    user = tokenizer.tokenizer.convert_tokens_to_ids("<|user|>")
    assert (tokens.split("train") == user).sum() == tokens.meta["splits"]["train"]["documents"]


def test_text_that_is_changed_has_no_floor(workspace, monkeypatch):
    monkeypatch.setattr(builtin, "TALES", 60)
    monkeypatch.setattr(builtin, "TALES_HELD_OUT", 10)
    known = prepare(DataRecipe(vocab_size=300), workspace)[2].meta["splits"]["validation"]["floor"]
    lossy = DataRecipe(vocab_size=300, tokenizer_normalization="lowercase")
    assert known > 0 and prepare(lossy, workspace)[2].meta["splits"]["validation"]["floor"] is None


def test_flags_make_the_settings_again():
    options = Options(special_pattern="<a b>'", split_digits=True, normalization="nfkc")
    assert flags(options.settings("bpe")) == """--special-pattern '<a b>'"'"'' --split-digits --normalization nfkc"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"normalization": "nfd"}, "normalization 'nfd' is none of them; did you mean 'nf"),
        ({"special_limit": 0}, "special_limit 0 should be 1 or more"),
        ({"special_pattern": "(("}, "is no regular expression"),
        ({"special_pattern": "a*"}, "also finds nothing at all"),
        ({"special_pattern": "a" * 300}, "too long: 200 are the most"),
    ],
)
def test_options_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        Options(**given)
    if "normalization" not in given:
        with pytest.raises(ValueError, match=rf"data.tokenizer_{next(iter(given))}"):
            DataRecipe(**{f"tokenizer_{name}": value for name, value in given.items()})


def test_a_prefix_space_could_not_be_taken_back_beside_signs_with_spaces():
    with pytest.raises(ValueError, match="finds 'says: ', which holds white space"):
        train("bpe", Options(special_pattern="says: ", prefix_space=True))


def test_a_vocabulary_holds_what_the_pattern_found():
    with pytest.raises(ValueError, match="4 reserved entries and 2 found by the pattern need 262 at least"):
        train("bpe", EXACT["special"], size=261)
    assert len(train("bpe", EXACT["special"], size=262)) == 262
