"""Repeated segments as a corpus: letters that cannot be guessed, and then the same letters once more.

Standard library only. A document is x x: n is drawn evenly from SHORTEST to LONGEST, and x is n letters, all different,
each as likely as any other that is left. How long x is nobody is told, so that a fixed distance back does not help: a
reader has to find where the letter at hand stood before, and read on behind it. This is what induction heads do
(arXiv:2209.11895), and there is nothing else to learn here.

The probability of a text is exact. Its length tells n and its first half tells x, so that
p(text) = 1/(LONGEST - SHORTEST + 1) · (A - n)! / A! for an alphabet of A letters. The second half and the end of the
document cost what n does: once one letter has come again, all that follows is known.
"""

import math
import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

LETTERS = string.ascii_letters + string.digits  # one piece each for the tokenizer of characters
SHORTEST, LONGEST = 8, 32  # letters of a segment: a document and its ends fit a context of 66 tokens


@dataclass(frozen=True)
class Repeats:
    """The process.

    Args:
        alphabet: the letters, each one character.
        shortest, longest: letters of a segment.
    """

    alphabet: str = LETTERS
    shortest: int = SHORTEST
    longest: int = LONGEST

    def __post_init__(self):
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"alphabet {self.alphabet!r} of repeated segments should be letters that all differ")
        if not 1 <= self.shortest <= self.longest <= len(self.alphabet):
            raise ValueError(
                f"segments of {self.shortest} to {self.longest} letters cannot be drawn: each letter comes once in a "
                f"segment, so 1 to {len(self.alphabet)} of the alphabet's can be in one"
            )

    def log_prob(self, text: str) -> float:
        """Of a whole document, its end included. Raises ValueError for a text that is no segment said twice."""
        n = len(text) // 2
        segment, no_document = text[:n], f"{text[:40]!r} is no document"
        if text != 2 * segment or len(set(segment)) != n or not set(segment) <= set(self.alphabet):
            raise ValueError(f"{no_document}: it should be different letters of the alphabet, said twice")
        if not self.shortest <= n <= self.longest:
            raise ValueError(f"{no_document}: it repeats {n} letters, not {self.shortest} to {self.longest}")
        A = len(self.alphabet)
        return -math.log(self.longest - self.shortest + 1) + math.lgamma(A - n + 1) - math.lgamma(A + 1)

    def documents(self, count: int, seed: int) -> Iterator[tuple[str, float]]:
        """`count` texts, each with the logarithm of its probability, its end included.

        The same seed gives the same ones, and a smaller count their beginning.
        """
        random = Random(seed)
        for _ in range(count):
            segment = "".join(random.sample(self.alphabet, random.randint(self.shortest, self.longest)))
            yield 2 * segment, self.log_prob(2 * segment)
