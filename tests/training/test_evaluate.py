"""Scores against closed forms: a source whose entropy is known, and models whose loss on it is known too."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.evaluate import Evaluator, mean_interval, pad, score

SOURCE = np.array([0.0, 0.5, 0.25, 0.25])  # of tokens 1 to 3; token 0 ends a document
END = 0.125  # after each token a document ends with this probability


class Constant(nn.Module):
    """Predicts the same distribution after every token."""

    def __init__(self, probabilities: np.ndarray):
        super().__init__()
        self.logits = torch.from_numpy(probabilities).log()

    def forward(self, input_ids, **kwargs):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


@dataclass
class FakeCorpus:
    log_probs: list[float]
    name: str = "coins"

    def split(self, name: str) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"text": [""] * len(self.log_probs), "log_prob": self.log_probs})


class FakeTokens:
    def __init__(self, ids, starts):
        self.ids, self.begin = np.asarray(ids, dtype=np.uint16), np.asarray(starts)
        self.meta = {"splits": {"validation": {"bytes": 100, "floor": 1.0}}}

    def split(self, name):
        return self.ids

    def starts(self, name):
        return self.begin


def truth() -> np.ndarray:
    """The source's own distribution over (end, 1, 2, 3)."""
    return np.array([END, *(SOURCE[1:] * (1 - END))])


@pytest.fixture(scope="module")
def coins() -> tuple[FakeCorpus, FakeTokens]:
    random = np.random.default_rng(0)
    p, ids, starts, log_probs = truth(), [], [], []
    for _ in range(400):
        document = [int(random.choice([1, 2, 3], p=SOURCE[1:]))]  # documents are not empty
        while (token := int(random.choice(4, p=p))) != 0:
            document.append(token)
        starts.append(len(ids))
        ids += [*document, 0]
        # the model does not know that documents are not empty, so neither may this probability
        log_probs.append(float(np.log(p[[*document, 0]]).sum()))
    return FakeCorpus(log_probs), FakeTokens(ids, starts)


def evaluator(coins, context: int = 64, start: str = "document") -> Evaluator:
    return Evaluator(*coins, context, start, batch_size=16, device=torch.device("cpu"))


def test_the_source_itself_has_no_excess(coins):
    result = evaluator(coins).excess(Constant(truth()))
    assert result["excess"] == pytest.approx(0, abs=1e-6)
    assert not result["leak"]
    assert result["documents"] > 390


def test_excess_of_a_wrong_model_is_its_divergence(coins):
    """Its expectation is the Kullback-Leibler divergence; paired by document, its sample mean is exact."""
    q = np.full(4, 0.25)
    result = evaluator(coins).excess(Constant(q))
    corpus, tokens = coins
    lengths = np.diff(np.append(tokens.begin, len(tokens.ids)))
    kept = lengths <= 64
    expected = (np.log(4) + np.array(corpus.log_probs)[kept] / lengths[kept]).mean()
    assert result["excess"] == pytest.approx(expected, abs=1e-6)
    low, high = result["excess_interval"]
    assert low < result["excess"] < high


def test_beating_the_floor_is_called_a_leak(coins):
    corpus, tokens = coins
    doubled = FakeCorpus([2 * p for p in corpus.log_probs])  # a corpus that claims more entropy than it has
    assert evaluator((doubled, tokens)).excess(Constant(truth()))["leak"]


def test_every_token_is_scored_once(coins):
    tokens = coins[1]
    by_document = evaluator(coins, context=5).sequences("validation")
    assert sum(len(s) - 1 for s in by_document) == len(tokens.ids)
    assert np.concatenate([s[1:] for s in by_document]).tolist() == tokens.ids.tolist()
    by_window = evaluator(coins, context=5, start="anywhere").sequences("validation")
    assert np.concatenate([s[1:] for s in by_window]).tolist() == tokens.ids[1:].tolist()


def test_bits_per_byte_is_nats_over_bytes(coins):
    tokens = coins[1]
    q = np.full(4, 0.25)
    report = evaluator(coins).report(Constant(q))
    assert report["val_loss"] == pytest.approx(math.log(4))
    assert report["perplexity"] == pytest.approx(4)
    assert report["bits_per_byte"] == pytest.approx(2 * len(tokens.ids) / 100)


def test_padding_and_batching_change_nothing():
    """Scored together, sequences of many lengths get what the library's own loss gives each alone."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes)).eval()
    random = np.random.default_rng(1)
    sequences = [random.integers(0, 20, length) for length in (2, 9, 5, 17, 3)]
    scores = score(model, sequences, batch_size=3, device=torch.device("cpu"))
    for sequence, nats, count in zip(sequences, scores.nats, scores.tokens, strict=True):
        ids = torch.from_numpy(sequence)[None]
        alone = model(input_ids=ids, labels=ids).loss.item() * (len(sequence) - 1)
        assert nats == pytest.approx(alone, rel=1e-5)
        assert count == len(sequence) - 1


def test_pad_marks_what_is_not_there():
    inputs, labels = pad([np.array([5, 6, 7]), np.array([8, 9])])
    assert inputs.tolist() == [[5, 6], [8, 0]]
    assert labels.tolist() == [[6, 7], [9, -100]]


def test_the_interval_covers_its_share():
    """Of many 95 % intervals for a known mean, about 95 % contain it."""
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(1000):
        mean, half = mean_interval(random.exponential(1.0, 200))
        covered += abs(mean - 1.0) < half
    assert 925 <= covered <= 965


def test_no_excess_where_the_tokenizer_loses_information(coins):
    corpus, tokens = coins
    lossy = FakeTokens(tokens.ids, tokens.begin)
    lossy.meta = {"splits": {"validation": {"bytes": 100, "floor": None}}}
    evaluator = Evaluator(corpus, lossy, 64, "document", 8, torch.device("cpu"))
    assert evaluator.excess(model=None) is None
