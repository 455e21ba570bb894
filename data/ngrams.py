"""Runs of words as hashes: what two texts share is found without keeping either.

Uses numpy alone. Texts become arrays of word numbers, those become one hash of 64 bits for each run of N words.
"""

import re
from collections.abc import Iterator

import numpy as np

N = 13  # words of an n-gram, as GPT-3 looked for its test sets in its training text (arXiv:2005.14165, app. C)
# Casing, punctuation and white space are ignored, as there; an apostrophe joins: "don't" is one word
WORD = re.compile(r"\w+(?:['’]\w+)*")
BREAK = re.compile(r"\s")
PIECE = 1 << 20  # characters split into words at a time: a book is no longer list of them than a batch is


class Numbers(dict):
    """A number for each distinct word, in the order in which they come."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return self[word]

    def of(self, text: str) -> np.ndarray:
        """The words of a text, (words,) uint64."""
        parts = [map(self.__getitem__, WORD.findall(piece.lower())) for piece in pieces(text)]
        return np.concatenate([np.fromiter(part, dtype=np.uint64) for part in parts])


def pieces(text: str) -> Iterator[str]:
    """A text in parts of about PIECE characters, cut at white space."""
    start = 0
    while len(text) - start > PIECE and (found := BREAK.search(text, start + PIECE)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def ngrams_of(numbers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of all n-grams of some documents, how many each document has); none goes over a document's end.

    The hash is a sum of each word's own hash times an odd constant of its place, mixed once more: two n-grams that
    differ are taken for one with a probability near 2^-64.
    """
    words = np.array([len(one) for one in numbers])
    sizes = np.maximum(words - N + 1, 0)
    stream = mix(np.concatenate(numbers))
    if len(stream) < N:
        return np.zeros(0, np.uint64), sizes
    hashes = np.zeros(len(stream) - N + 1, np.uint64)
    for place in range(N):
        hashes += stream[place : place + len(hashes)] * PLACES[place]
    document = np.repeat(np.arange(len(words)), words)
    return mix(hashes[document[: len(hashes)] == document[N - 1 :]]), sizes


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64 of each value (doi:10.1145/2714064.2660195): a bijection of 64 bits that leaves no pattern."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


PLACES = mix(np.arange(1000, 1000 + N, dtype=np.uint64)) | np.uint64(1)


def places(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where in `wanted`, which is sorted, those of the values stand that it holds."""
    at = np.searchsorted(wanted, values)
    at[at == len(wanted)] = 0
    return at[wanted[at] == values]
