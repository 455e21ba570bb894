"""Markov chains and modular recurrences: their probabilities against enumeration, naive counts and closed forms."""

import hashlib
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from data import builtin
from data.corpora import open_corpus
from data.markov import Chain
from data.modular import Recurrence

SMALL = Chain(order=2, alphabet="ab", length=3)
ORDERS = [1, 2, 3]


def sample(chain: Chain, count: int, seed: int = 0) -> list[tuple[str, float]]:
    return list(chain.documents(count, seed))


def joint(chain: Chain) -> tuple[np.ndarray, list[str]]:
    """The whole transition matrix over contexts, (contexts, contexts), built entry by entry."""
    contexts = list(chain.rows)
    matrix = np.zeros((len(contexts), len(contexts)))
    for i, context in enumerate(contexts):
        for letter, odds in zip(chain.alphabet, chain.rows[context], strict=True):
            matrix[i, contexts.index((context + letter)[1:])] += odds / sum(chain.rows[context])
    return matrix, contexts


def naive_stationary(chain: Chain) -> dict[str, float]:
    """By solving pi P = pi, sum(pi) = 1, as a linear system."""
    matrix, contexts = joint(chain)
    n = len(contexts)
    system = np.vstack([matrix.T - np.eye(n), np.ones(n)])
    solved = np.linalg.lstsq(system, np.array([0.0] * n + [1.0]), rcond=None)[0]
    return dict(zip(contexts, solved.tolist(), strict=True))


def naive_log_prob(chain: Chain, text: str) -> float:
    """The document rule written out: a stationary beginning, one letter after another, a coin after each."""
    pi, end = naive_stationary(chain), 1 / chain.length
    start = text[: chain.order]
    p = sum(weight for context, weight in pi.items() if context.startswith(start))
    for i in range(chain.order, len(text)):
        row = chain.rows[text[i - chain.order : i]]
        p *= row[chain.alphabet.index(text[i])] / sum(row)
    for _ in range(len(text) - 1):
        p *= 1 - end
    return math.log(p * end)


@pytest.mark.parametrize("order", ORDERS)
def test_stationary_distribution_and_entropy_rate_in_closed_form(order):
    chain = Chain(order, alphabet="abcd")
    pi = naive_stationary(chain)
    assert chain.stationary == pytest.approx(np.array(list(pi.values())), abs=1e-12)
    rate = 0.0
    for context, weight in pi.items():
        shares = [odds / sum(chain.rows[context]) for odds in chain.rows[context]]
        rate -= weight * sum(p * math.log(p) for p in shares)
    assert chain.entropy_rate == pytest.approx(rate, abs=1e-10)
    # stationary: what a letter is like does not depend on where in the document it stands
    last = Counter()
    for context, weight in pi.items():
        last[context[-1]] += weight
    assert dict(last) == pytest.approx(chain.beginnings[1])


@pytest.mark.parametrize("order", ORDERS)
def test_the_mean_surprise_is_the_closed_form(order):
    chain = Chain(order)
    nats = np.array([-log_prob for _, log_prob in sample(chain, 3000, seed=7)])
    assert nats.mean() == pytest.approx(chain.document_entropy, abs=4 * nats.std() / math.sqrt(len(nats)))
    # per letter, the length's own part taken out: the entropy rate, here far more sharply
    texts = sample(chain, 3000, seed=8)
    letters = sum(len(text) for text, _ in texts)
    of_letters = -sum(log_prob - chain.end_log_prob(len(text)) for text, log_prob in texts)
    assert of_letters / letters == pytest.approx(chain.entropy_rate, rel=0.02)


@pytest.mark.parametrize("chain", [SMALL, Chain(1, "abc", length=4), Chain(3, "xy", seed=5)])
def test_log_probabilities_by_a_naive_loop(chain):
    for text, log_prob in sample(chain, 50, seed=1):
        assert log_prob == chain.log_prob(text) == pytest.approx(naive_log_prob(chain, text), abs=1e-9)


def test_all_documents_together_have_probability_one():
    """Those of up to 14 letters, every one of them, and what the geometric tail leaves."""
    total = 0.0
    for length in range(1, 15):
        of_length = sum(math.exp(SMALL.log_prob("".join(letters))) for letters in product("ab", repeat=length))
        assert of_length == pytest.approx((1 - 1 / 3) ** (length - 1) / 3)
        total += of_length
    assert total + (2 / 3) ** 14 == pytest.approx(1, abs=1e-12)


def test_documents_come_as_often_as_their_probability_says():
    counts = Counter(text for text, _ in sample(SMALL, 20_000))
    for text in ("a", "b", "ab", "bb", "aba"):
        p = math.exp(SMALL.log_prob(text))
        assert counts[text] / 20_000 == pytest.approx(p, abs=4 * math.sqrt(p / 20_000))


def test_a_shorter_context_knows_less():
    """The best predictor of one letter fewer stays above the entropy rate: the order is really needed."""
    for order in (2, 3):
        chain = Chain(order)
        shorter = chain.stationary.reshape(len(chain.alphabet), -1)  # (oldest letter, the later ones)
        pair = (shorter[:, :, None] * chain.transitions.reshape(*shorter.shape, -1)).sum(axis=0)
        entropy = -(pair * np.log(pair / pair.sum(axis=1, keepdims=True))).sum()
        assert entropy > chain.entropy_rate + 0.2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": 0}, "order 0 of a Markov chain should be 1 or more"),
        ({"order": 1, "alphabet": "aa"}, "should be two or more different letters"),
        ({"order": 1, "length": 1}, "should be 2 letters or more"),
        ({"order": 1, "concentration": 0}, "should be above 0"),
    ],
)
def test_chains_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        Chain(**given)


@pytest.mark.parametrize("text", ["", "abz", "a b"])
def test_texts_of_no_chain(text):
    with pytest.raises(ValueError, match="is no document of this chain"):
        Chain(1, "ab").log_prob(text)


@pytest.mark.parametrize("terms", [3, 4, 6])
@pytest.mark.parametrize("prime", [2, 3, 5])
def test_probabilities_of_all_recurrences(prime, terms):
    """Every start with every rule, counted: a text's probability is the share of them that write it."""
    process = Recurrence(prime, terms)
    counts = Counter(process.write(*drawn) for drawn in product(range(prime), repeat=4))
    for text, count in counts.items():
        assert math.exp(process.log_prob(text)) == pytest.approx(count / prime**4)
    assert sum(math.exp(process.log_prob(text)) for text in counts) == pytest.approx(1)


def test_a_recurrence_by_hand():
    process = Recurrence(7, 6)
    assert process.write(1, 2, 3, 4) == "1 2 3 3 0 5"  # 3·2+4·1=10, 3·3+4·2=17, 3·3+4·3=21, 3·0+4·3=12
    assert process.log_prob("1 2 3 3 0 5") == pytest.approx(-4 * math.log(7))
    assert process.log_prob("0 0 0 0 0 0") == pytest.approx(-2 * math.log(7))  # says nothing of a and b
    assert process.log_prob("1 1 1 1 1 1") == pytest.approx(-3 * math.log(7))  # says a + b = 1


@pytest.mark.parametrize("text", ["1 2 3 3 0 6", "1 2 3", "1  2 3 3 0 5", "1 2 3 3 0 05", "1 2 3 3 0 7", "a b", ""])
def test_texts_of_no_recurrence(text):
    with pytest.raises(ValueError, match="is no document"):
        Recurrence(7, 6).log_prob(text)


@pytest.mark.parametrize(("given", "message"), [({"prime": 9}, "a prime number"), ({"terms": 2}, "3 or more")])
def test_recurrences_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        Recurrence(**given)


@pytest.mark.parametrize("write", [Chain(1).documents, Chain(3).documents, Recurrence().documents])
def test_a_smaller_count_is_the_beginning(write):
    assert list(write(5, 3)) == list(write(20, 3))[:5] != list(write(5, 4))


def test_the_same_seed_writes_the_same_corpus_everywhere():
    digests = {}
    for name, process in {"markov-2": Chain(2), "modular": Recurrence()}.items():
        texts = "\n".join(text for text, _ in process.documents(500, 0))
        digests[name] = hashlib.sha256(texts.encode()).hexdigest()[:16]
    assert digests == {"markov-2": "b58b4a11a931bc4b", "modular": "446e1d33dd34b20d"}


@pytest.mark.parametrize("name", ["markov-1", "markov-2", "markov-3", "modular"])
def test_a_snapshot_knows_its_floor(name, workspace, monkeypatch):
    monkeypatch.setattr(builtin, "TALES", 40)
    monkeypatch.setattr(builtin, "TALES_HELD_OUT", 10)
    corpus = open_corpus(name, workspace)
    rows = corpus.split("validation")
    assert len(corpus.split("train")) == 30 and len(rows) == 10
    process = Recurrence() if name == "modular" else Chain(int(name[-1]))
    assert rows["log_prob"] == [process.log_prob(text) for text in rows["text"]]
    assert corpus.floor["validation"]["nats"] == pytest.approx(-sum(rows["log_prob"]))
    assert open_corpus(name, workspace).sha256 == corpus.sha256
