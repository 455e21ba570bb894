"""Mixtures: the shares are what was asked for, from the parents' own splits, the same each time."""

import json

import pytest

from data.corpora import add_corpus, open_corpus
from data.mixtures import cut, mix, parse_weights
from data.prepare import DataRecipe, prepare
from data.snapshots import SPLITS


@pytest.fixture
def parents(write, workspace):
    """`plain`: four thousand documents of 40 bytes. `scripts`: of other lengths, in Greek. `book`: one long text."""
    plain = [{"text": f"plain {i:04} ".ljust(40, "p")} for i in range(4000)]
    scripts = [{"text": f"γράμμα {i} " + "ω" * (i % 90)} for i in range(3000)]
    book = "".join(f"Line {i} of a book.\n" for i in range(1500))
    return {
        "plain": add_corpus("plain", [write("plain.jsonl", plain)], workspace, licence="CC0"),
        "scripts": add_corpus("scripts", [write("scripts.jsonl", scripts)], workspace, licence="MIT"),
        "book": add_corpus("book", [write("book.txt", book)], workspace),
    }


def texts(corpus) -> dict[str, list[str]]:
    return {split: list(corpus.texts(split)) for split in SPLITS}


def size(documents: list[str]) -> int:
    return sum(len(text.encode()) for text in documents)


def test_weights_are_shares_of_bytes_in_both_splits(parents, workspace):
    corpus = mix("both", {"plain": 3, "scripts": 1}, workspace, size=80_000)
    mixed = texts(corpus)
    for split in SPLITS:
        own = {name: set(parents[name].texts(split)) for name in ("plain", "scripts")}
        assert len(mixed[split]) == len(set(mixed[split]))  # nothing twice
        of_plain = [text for text in mixed[split] if text in own["plain"]]
        of_scripts = [text for text in mixed[split] if text in own["scripts"]]
        assert len(of_plain) + len(of_scripts) == len(mixed[split])  # from the same split of the parents, whole
        total = {"train": 80_000, "validation": 8_000}[split]
        assert size(of_plain) == pytest.approx(0.75 * total, abs=40)  # to half of the longest document
        assert size(of_scripts) == pytest.approx(0.25 * total, abs=120)
    first_half = mixed["train"][: len(mixed["train"]) // 2]
    assert 0.3 < size([text for text in first_half if "γ" in text]) / size(first_half) / 0.5 < 0.8  # in a mixed order


def test_the_manifest_names_the_parents(parents, workspace):
    corpus = mix("both", {"scripts": 1, "plain": 1}, workspace, size=60_000, seed=4)
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    assert [(one["name"], one["weight"], one["sha256"]) for one in manifest["parents"]] == [
        (name, 0.5, parents[name].sha256) for name in ("plain", "scripts")
    ]
    counted = [sum(one["bytes"][split] for one in manifest["parents"]) for split in SPLITS]
    assert counted == [manifest["splits"][split]["bytes"] for split in SPLITS]
    assert (
        manifest["licence"] == "CC0 + MIT" and manifest["split"]["kind"] == "mixed" and manifest["split"]["seed"] == 4
    )
    assert manifest["floor"] is None


def test_the_same_mixture_is_found_and_another_seed_is_another(parents, workspace):
    first = mix("both", {"plain": 0.7, "scripts": 0.3}, workspace, size=60_000)
    assert mix("both", {"scripts": 3, "plain": 7}, workspace, size=60_000).path == first.path
    other = mix("both", {"plain": 0.7, "scripts": 0.3}, workspace, size=60_000, seed=1)
    assert other.name.startswith("both-") and other.sha256 != first.sha256
    again = mix("elsewhere", {"plain": 0.7, "scripts": 0.3}, workspace, size=60_000)
    assert again.sha256 == first.sha256  # of the ingredients alone, whatever it is called


def test_without_a_cap_one_parent_is_used_up(parents, workspace):
    mixed = texts(mix("all", {"plain": 1, "scripts": 3}, workspace))
    of_scripts = [text for text in mixed["train"] if "γ" in text]
    assert set(of_scripts) == set(parents["scripts"].texts("train"))
    assert size(of_scripts) / size(mixed["train"]) == pytest.approx(0.75, abs=0.01)


def test_so_many_documents(parents, workspace):
    mixed = texts(mix("few", {"plain": 1, "scripts": 1}, workspace, documents=100))
    assert len(mixed["train"]) == pytest.approx(100, abs=4)


def test_a_long_text_gives_its_beginning(parents, workspace):
    corpus = mix("cut", {"plain": 1, "book": 1}, workspace, size=30_000)
    (part,) = [text for text in corpus.texts("train") if text.startswith("Line")]
    assert next(parents["book"].texts("train")).startswith(part) and part.endswith("book.\n")
    assert 14_900 < len(part) <= 15_000
    assert cut("ωωω", 5) == "ωω" and cut("one\ntwo three", 9) == "one\ntwo t"  # no half character; no far line


def test_a_recipe_names_a_mixture(parents, workspace):
    mix("both", {"plain": 1, "scripts": 1}, workspace, size=60_000)
    corpus, _, tokens = prepare(DataRecipe(corpus="both", tokenizer="char"), workspace)
    assert corpus.name == "both" and len(tokens.split("train")) > 1_000


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["plain=0.7"], "two corpora or more"),
        (["plain", "book=1"], "should be a corpus and its weight"),
        (["plain=0", "book=1"], "should be a corpus and its weight"),
        (["plain=inf", "book=1"], "should be a corpus and its weight"),
        (["plain=1", "plain=2"], "named twice"),
    ],
)
def test_weights_that_are_none(weights, message):
    with pytest.raises(ValueError, match=message):
        parse_weights(weights)


def test_what_cannot_be_mixed(parents, workspace):
    assert parse_weights(["hf:a/b=0.5", "plain=2"]) == {"hf:a/b": 0.5, "plain": 2.0}
    pair = {"plain": 1, "scripts": 1}
    with pytest.raises(ValueError, match=r"plain has 144,000 bytes of training text, and 0.5 of 900,000 are more"):
        mix("much", pair, workspace, size=900_000)
    with pytest.raises(ValueError, match="too few for a mixture"):
        mix("little", pair, workspace, size=10)
    with pytest.raises(ValueError, match="give one of both"):
        mix("two", pair, workspace, documents=10, size=10)
    with pytest.raises(ValueError, match="name of another corpus"):
        mix("tales", pair, workspace)
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        mix("typo", {"plian": 1, "scripts": 1}, workspace)
    assert open_corpus("plain", workspace) == parents["plain"]
