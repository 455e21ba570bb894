"""Repeated segments: their probabilities against enumeration and closed forms, and what is refused."""

import math
from collections import Counter
from itertools import permutations

import pytest

from data.corpora import open_corpus
from data.repeats import LETTERS, Repeats

SMALL = Repeats(alphabet="abc", shortest=1, longest=2)


def test_probabilities_of_all_documents_sum_to_one():
    every = [2 * "".join(letters) for n in (1, 2) for letters in permutations("abc", n)]
    assert len(every) == 9
    assert sum(math.exp(SMALL.log_prob(text)) for text in every) == pytest.approx(1)
    assert SMALL.log_prob("aa") == pytest.approx(math.log(1 / 2 / 3))
    assert SMALL.log_prob("acac") == pytest.approx(math.log(1 / 2 / 6))


def test_documents_come_as_often_as_their_probability_says():
    drawn = list(SMALL.documents(9000, seed=1))
    counts = Counter(text for text, _ in drawn)
    for text, log_prob in set(drawn):
        p = math.exp(log_prob)
        assert counts[text] / 9000 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 9000))


def test_the_shipped_process_is_segments_of_different_letters_said_twice():
    first, again = (list(Repeats().documents(300, seed=7)) for _ in range(2))
    assert first == again and first[:20] == list(Repeats().documents(20, seed=7))
    for text, log_prob in first:
        n = len(text) // 2
        assert text[:n] == text[n:] and len(set(text)) == n and 8 <= n <= 32 and set(text) <= set(LETTERS)
        assert log_prob == pytest.approx(-math.log(25) - sum(math.log(62 - i) for i in range(n)))


@pytest.mark.parametrize("text", ["ab", "abca", "aaaa", "adad", "abcabc", ""])
def test_what_the_process_never_writes_is_refused(text):
    with pytest.raises(ValueError, match="is no document"):
        SMALL.log_prob(text)


def test_a_process_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="letters that all differ"):
        Repeats(alphabet="aab")
    with pytest.raises(ValueError, match="cannot be drawn"):
        Repeats(alphabet="abc", shortest=2, longest=4)


def test_the_corpus_knows_its_floor(workspace, monkeypatch):
    monkeypatch.setattr("data.builtin.TALES", 60)
    monkeypatch.setattr("data.builtin.TALES_HELD_OUT", 20)
    corpus = open_corpus("repeats", workspace)
    split = corpus.manifest["splits"]["validation"]
    nats = -sum(log_prob for _, log_prob in Repeats().documents(20, seed=1))
    assert corpus.floor["validation"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / split["bytes"])
