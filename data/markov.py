"""Markov chains as a corpus: text whose entropy is known in closed form.

Uses numpy; nothing of ours. The next letter depends on the last k letters and on nothing else, so a model needs exactly
k letters of context: with fewer it stays above the floor, with more it has nothing to gain.

A document begins in the stationary distribution, so that every letter has the same entropy whatever comes before, and
after each letter it ends with the same probability: its end, too, is predicted as well from nothing as from all of it.
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from random import Random

import numpy as np

LETTERS = "abcdefgh"
LENGTH = 100  # letters of a document on average: most fit a context of 128 tokens whole
CONCENTRATION = 0.5  # of the Dirichlet distribution: below 1, a few letters are likely and most are not
ODDS = 10_000  # a row's probabilities are whole numbers out of about so many, the same on every machine
ITERATIONS = 10_000  # of the power method, far more than chains of this kind need
TOLERANCE = 1e-15


@dataclass(frozen=True)
class Chain:
    """A chain of some order.

    Args:
        order: letters on which the next one depends.
        alphabet: the letters, each one character.
        seed: of the transition probabilities.
        length: letters of a document on average.
        concentration: of the Dirichlet distribution from which each context's probabilities are drawn.
    """

    order: int
    alphabet: str = LETTERS
    seed: int = 0
    length: int = LENGTH
    concentration: float = CONCENTRATION

    def __post_init__(self):
        if self.order < 1:
            raise ValueError(f"order {self.order} of a Markov chain should be 1 or more")
        if len(set(self.alphabet)) != len(self.alphabet) or len(self.alphabet) < 2:
            raise ValueError(f"alphabet {self.alphabet!r} of a Markov chain should be two or more different letters")
        if self.length < 2:
            raise ValueError(f"length {self.length} of a Markov chain's documents should be 2 letters or more")
        if self.concentration <= 0:
            raise ValueError(f"concentration {self.concentration:g} of a Markov chain should be above 0")

    @cached_property
    def rows(self) -> dict[str, list[int]]:
        """The odds of each next letter, by the letters before; none is 0, so that every text is possible."""
        random = Random(f"markov {self.order} {self.alphabet} {self.seed}")
        rows = {}
        for context in map("".join, product(self.alphabet, repeat=self.order)):
            # gamma variates, normalised, are a draw from the Dirichlet distribution
            weights = [random.gammavariate(self.concentration, 1.0) for _ in self.alphabet]
            rows[context] = [max(1, round(ODDS * weight / sum(weights))) for weight in weights]
        return rows

    @cached_property
    def transitions(self) -> np.ndarray:
        """p(letter | context), (contexts, letters), contexts in the order of `rows`."""
        odds = np.array(list(self.rows.values()), dtype=float)
        return odds / odds.sum(axis=1, keepdims=True)

    @cached_property
    def stationary(self) -> np.ndarray:
        """Probability of each context in the long run, (contexts,): the fixed point of one step."""
        n, p = len(self.alphabet), self.transitions
        pi = np.full(len(p), 1 / len(p))
        for _ in range(ITERATIONS):
            # contexts count in base n, so a step from (a, rest) by b leads to (rest, b): sum over a
            after = (pi[:, None] * p).reshape(n, -1, n).sum(axis=0).reshape(-1)
            if np.abs(after - pi).max() < TOLERANCE:
                break
            pi = after
        return pi / pi.sum()

    @cached_property
    def entropy_rate(self) -> float:
        """Nats per letter in the long run: sum over contexts of pi(c) H(p(. | c)) (Cover and Thomas, thm 4.2.4)."""
        p = self.transitions
        return float(-(self.stationary[:, None] * p * np.log(p)).sum())

    @cached_property
    def beginnings(self) -> list[dict[str, float]]:
        """For j = 0 to `order`: the stationary probability of each beginning of j letters."""
        n = len(self.alphabet)
        return [
            dict(
                zip(
                    map("".join, product(self.alphabet, repeat=j)),
                    self.stationary.reshape(n**j, -1).sum(axis=1).tolist(),
                    strict=True,
                )
            )
            for j in range(self.order + 1)
        ]

    @cached_property
    def document_entropy(self) -> float:
        """Nats of a document on average, its end included.

        A geometric number of letters, H(length) = H(1/L)·L, each letter reached with probability (1 - 1/L)^(j-1).
        """
        end, k = 1 / self.length, self.order
        prefixes = [-sum(p * math.log(p) for p in level.values()) for level in self.beginnings]  # H(X_1 .. X_j)
        letters = sum((1 - end) ** (j - 1) * (prefixes[j] - prefixes[j - 1]) for j in range(1, k + 1))
        letters += (1 - end) ** k / end * self.entropy_rate
        return letters - ((1 - end) * math.log(1 - end) + end * math.log(end)) / end

    def log_prob(self, text: str) -> float:
        """Of a whole document, its end included. Raises ValueError for a text that is none."""
        if not text or not set(text) <= set(self.alphabet):
            raise ValueError(f"{text[:40]!r} is no document of this chain: one or more of the letters {self.alphabet}")
        k, steps = self.order, self.steps
        start = math.log(self.beginnings[min(k, len(text))][text[:k]])
        return start + sum([steps[text[i - k : i + 1]] for i in range(k, len(text))]) + self.end_log_prob(len(text))

    def end_log_prob(self, letters: int) -> float:
        """Of ending after so many letters, and not before."""
        return (letters - 1) * math.log1p(-1 / self.length) - math.log(self.length)

    @cached_property
    def steps(self) -> dict[str, float]:
        """Logarithm of the probability of a letter, by the context and the letter itself."""
        return {
            context + letter: math.log(odds / sum(row))
            for context, row in self.rows.items()
            for letter, odds in zip(self.alphabet, row, strict=True)
        }

    def documents(self, count: int, seed: int) -> Iterator[tuple[str, float]]:
        """`count` texts, each with the logarithm of its probability, its end included.

        The same seed gives the same ones, and a smaller count their beginning.
        """
        random, k = Random(seed), self.order
        bounds = {context: list(accumulate(row)) for context, row in self.rows.items()}
        starts, start_bounds = list(self.rows), list(accumulate(self.stationary.tolist()))
        for _ in range(count):
            # the length first, by the inverse of its distribution function
            length = 1 + math.floor(math.log(1 - random.random()) / math.log1p(-1 / self.length))
            text = random.choices(starts, cum_weights=start_bounds)[0]
            for _ in range(length - k):
                bound = bounds[text[-k:]]
                text += self.alphabet[bisect(bound, random.random() * bound[-1])]
            yield text[:length], self.log_prob(text[:length])
