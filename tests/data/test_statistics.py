"""Statistics of a corpus against naive counts of the same texts."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import ngrams, statistics
from data.ngrams import N, Numbers, ngrams_of, places
from data.snapshots import SPLITS, write_snapshot
from data.statistics import kept, lines
from page.statistics import view

WORDS = ["the", "cat's", "Cat,", "sat.", "on", "a", "mat", "and", "saw", "one", "red", "dog", "ran", "away", "today"]


def make(workspace, train: list[str], validation: list[str], name: str = "small"):
    how = {"kind": "by-document", "seed": 0, "fraction": 0.5, "tails": 0}
    path = workspace.room("corpora") / name
    parts = {"train": train, "validation": validation}
    return write_snapshot(path, parts, how, [{"name": "made", "bytes": 0, "sha256": "0" * 64}], "0" * 64, "none")


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def naive_ngrams(text: str) -> list[tuple[str, ...]]:
    words = words_of(text)
    return [tuple(words[i : i + N]) for i in range(len(words) - N + 1)]


def naive_overlap(train: list[str], validation: list[str]) -> dict:
    held = {ngram for text in train for ngram in naive_ngrams(text)}
    found = [[ngram in held for ngram in naive_ngrams(text)] for text in validation]
    every = [hit for hits in found for hit in hits]
    return {
        "exact": sum(text in train for text in validation) / len(validation),
        "ngram_documents": sum(any(hits) for hits in found) / len(validation),
        "ngrams": sum(every) / len(every) if every else 0.0,
        "short_documents": sum(not hits for hits in found),
        "ngrams_counted": len(every),
    }


documents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join)


@given(train=st.lists(documents, min_size=1, max_size=6), data=st.data())
@settings(max_examples=40, deadline=None)
def test_overlap_is_what_a_naive_count_finds(tmp_path_factory, train, data):
    from data.workspace import Workspace

    copied = st.sampled_from(train)
    partly = st.tuples(documents, copied, documents).map(" ".join)
    validation = data.draw(st.lists(documents | copied | partly, min_size=1, max_size=6))
    found = statistics.statistics(make(Workspace(tmp_path_factory.mktemp("w")), train, validation))
    for what, figure in naive_overlap(train, validation).items():
        assert found["overlap"][what] == pytest.approx(figure), what
    for name, texts in (("train", train), ("validation", validation)):
        counts = Counter(word for text in texts for word in words_of(text))
        split = found["splits"][name]
        assert split["words"] == counts.total() and split["distinct_words"] == len(counts)
        assert split["duplicates"] == len(texts) - len(set(texts))
        assert dict(split["frequent"]) == dict(counts)  # fewer than are listed
        assert all(a[1] >= b[1] for a, b in pairwise(split["frequent"]))


def test_lengths_and_counts(workspace):
    texts = ["x" * n for n in range(1, 102)]
    found = statistics.statistics(make(workspace, texts, ["é x"]))["splits"]
    assert found["train"]["lengths"]["quantiles"] == {
        "0": 1, "0.05": 6, "0.25": 26, "0.5": 51, "0.75": 76, "0.95": 96, "1": 101
    }  # fmt: skip
    drawn = found["train"]["lengths"]["histogram"]
    assert sum(drawn["counts"]) + drawn["beyond"] == 101 and found["train"]["lengths"]["mean"] == 51
    assert (found["validation"]["characters"], found["validation"]["bytes"]) == (3, 4)


def test_case_and_punctuation_do_not_hide_an_overlap_and_one_word_does(workspace):
    words = [f"w{i}" for i in range(N)]
    train = ["before " + " ".join(words) + " after"]
    shared = ["— " + ", ".join(words).upper() + "!", " ".join(words[:-1]) + " other", " ".join(words[1:])]
    found = statistics.overlap(make(workspace, train, shared))
    assert (found["ngram_documents"], found["ngrams"], found["exact"]) == (pytest.approx(1 / 3), 0.5, 0)
    assert found["short_documents"] == 1


def test_ngrams_do_not_go_over_the_end_of_a_document(workspace):
    words = " ".join(f"w{i}" for i in range(N)).split()
    found = statistics.overlap(make(workspace, [" ".join(words[:6]), " ".join(words[6:])], [" ".join(words)]))
    assert found["ngrams_counted"] == 1 and found["ngrams"] == 0


def test_a_duplicated_validation_split_is_all_overlap(workspace, texts):
    shared = statistics.overlap(make(workspace, texts, texts[::-1]))
    assert shared["exact"] == 1 and shared["ngrams"] == 1
    apart = statistics.overlap(make(workspace, texts[:20], [text[::-1] for text in texts[20:]], "apart"))
    assert apart["exact"] == apart["ngrams"] == 0


@given(text=st.text(alphabet="ab' ,\n", max_size=60), size=st.integers(1, 20))
@settings(deadline=None)
def test_cutting_a_long_text_loses_no_word(text, size):
    before, ngrams.PIECE = ngrams.PIECE, size
    try:
        parts = list(ngrams.pieces(text))
        number = Numbers()
        found = number.of(text)
    finally:
        ngrams.PIECE = before
    assert "".join(parts) == text
    names = list(number)
    assert [names[i] for i in found.tolist()] == words_of(text)


def test_hashes_tell_order_and_place_apart():
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 4, 20_000).astype(np.uint64)  # few words, so that many runs are nearly alike
    hashes, sizes = ngrams_of([stream])
    windows = np.lib.stride_tricks.sliding_window_view(stream, N)
    assert sizes.tolist() == [len(windows)] == [len(hashes)]
    assert len(np.unique(hashes)) == len(np.unique(windows, axis=0))
    one = np.arange(N, dtype=np.uint64)
    assert ngrams_of([one])[0] != ngrams_of([one[::-1]])[0]
    assert places(np.array([5, 1, 9], np.uint64), np.array([1, 3, 9], np.uint64)).tolist() == [0, 2]


def test_what_was_measured_is_kept_for_these_texts_alone(workspace, monkeypatch):
    corpus = make(workspace, ["one two"], ["three"])
    assert kept(corpus) is None
    first = statistics.statistics(corpus, workspace)
    monkeypatch.setattr(statistics, "measure", lambda corpus: pytest.fail("measured again"))
    assert statistics.statistics(corpus) == first == json.loads((corpus.path / "statistics.json").read_text())
    monkeypatch.undo()
    (corpus.path / "statistics.json").write_text("{")  # torn
    assert statistics.statistics(corpus)["splits"] == first["splits"]
    (corpus.path / "statistics.json").write_text(json.dumps({**first, "sha256": "other text"}))
    assert kept(corpus) is None


def test_a_text_without_words(workspace):
    found = statistics.statistics(make(workspace, ["...", "!"], ["?"]))
    assert found["splits"]["train"]["words"] == 0 and found["splits"]["train"]["frequent"] == []
    assert found["overlap"]["ngrams"] == 0 and "0.00%" in "\n".join(lines(found))
    assert "most frequent words" in view(found)


def test_what_a_person_sees(workspace):
    found = statistics.statistics(make(workspace, ["<b>fox</b> ran"] * 3, ["<b>fox</b> ran", "a dog"]))
    said = "\n".join(lines(found))
    assert "duplicates" in said and "50.00% are in training to the letter" in said
    assert "most frequent in train: b 6, fox 3, ran 3" in said
    drawn = view(found)
    assert "50.00%" in drawn and "lab-warning" in drawn and "<b>fox" not in drawn
    assert set(found["splits"]) == set(SPLITS)
