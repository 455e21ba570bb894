"""Modular recurrences as a corpus: numbers that follow a rule which each document has for itself.

Standard library only. A document is x_0 x_1 x_2 …, with x_t = (a·x_{t-1} + b·x_{t-2}) mod p; x_0, x_1, a and b are
drawn evenly from 0 to p - 1 and the rule is not told. A reader who solves for a and b knows all that follows, so the
whole entropy lies in the first few numbers, four of them as a rule, and what a model loses after these it loses by not
having found a and b.

The probability of a text is exact. Given x_0 and x_1, the other numbers are linear in (a, b): the rules that agree with
them are p^(2 - r) of p^2, r being the rank over the integers modulo p of the pairs (x_{t-1}, x_{t-2}). So
p(text) = p^-2 · p^-r, that is (2 + r)·ln p nats. All have as many numbers, so the end costs nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

PRIME = 31  # 31^4 texts: of 2,000 held out, one in 25 is in training; each number is one piece for a small tokenizer
TERMS = 24  # in a document; with the spaces some 64 characters


@dataclass(frozen=True)
class Recurrence:
    """The process.

    Args:
        prime: the modulus p.
        terms: numbers in a document.
    """

    prime: int = PRIME
    terms: int = TERMS

    def __post_init__(self):
        if self.prime < 2 or any(self.prime % n == 0 for n in range(2, math.isqrt(self.prime) + 1)):
            raise ValueError(f"prime {self.prime} of a modular recurrence should be a prime number, such as {PRIME}")
        if self.terms < 3:
            raise ValueError(f"terms {self.terms} of a modular recurrence should be 3 or more")

    def write(self, x: int, y: int, a: int, b: int) -> str:
        """The document of a rule and its first two numbers."""
        numbers = [x, y]
        while len(numbers) < self.terms:
            numbers.append((a * numbers[-1] + b * numbers[-2]) % self.prime)
        return " ".join(map(str, numbers))

    def solve(self, numbers: list[int]) -> tuple[int, int, int]:
        """(rank of the equations for a and b, an a and a b that solve as many of them).

        Each number from the third on is an equation a·last + b·before = value; by Cramer's rule modulo p.
        """
        p = self.prime
        equations = [(y, x, z) for (x, y), z in zip(pairwise(numbers), numbers[2:], strict=False) if x or y]
        if not equations:
            return 0, 0, 0
        last, before, value = equations[0]
        for other_last, other_before, other_value in equations[1:]:
            determinant = (last * other_before - other_last * before) % p
            if determinant:
                inverse = pow(determinant, -1, p)
                a = (value * other_before - other_value * before) * inverse % p
                b = (last * other_value - other_last * value) * inverse % p
                return 2, a, b
        # one equation, said again and again: any rule that solves it does, such as one without the other coefficient
        return (1, value * pow(last, -1, p) % p, 0) if last else (1, 0, value * pow(before, -1, p) % p)

    def log_prob(self, text: str) -> float:
        """Of a whole document, its end included. Raises ValueError for a text that no rule gives."""
        numbers = [int(part) for part in text.split(" ") if part.isascii() and part.isdigit()]
        if len(numbers) != self.terms or max(numbers) >= self.prime:
            raise ValueError(f"{text[:40]!r} is no document: it should be {self.terms} numbers below {self.prime}")
        rank, a, b = self.solve(numbers)
        if self.write(numbers[0], numbers[1], a, b) != text:
            raise ValueError(f"{text[:40]!r} is no document: its numbers follow no rule modulo {self.prime}")
        return -(2 + rank) * math.log(self.prime)

    def documents(self, count: int, seed: int) -> Iterator[tuple[str, float]]:
        """`count` texts, each with the logarithm of its probability, its end included.

        The same seed gives the same ones, and a smaller count their beginning.
        """
        random = Random(seed)
        for _ in range(count):
            text = self.write(*(random.randrange(self.prime) for _ in range(4)))
            yield text, self.log_prob(text)
