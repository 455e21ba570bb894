"""Tales: the built-in corpus. A probabilistic grammar of our own writes short children's stories.

Uses `data/tales_grammar.py` (the machinery) and `data/tales_plots.py` (the words and the plots); standard library only.

Each story comes with the exact log-probability the grammar gives it, so the corpus knows its own entropy: no
language model can have a lower expected loss, and what it has in excess is what it has yet to learn. The grammar also
reads: it tells whether a model's own story is one it could have written, and if not, which word is wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from data.tales_grammar import KINDS, NotATale, Reader, Writer
from data.tales_plots import ROLES, tell_tale

__all__ = ["KINDS", "NotATale", "Tale", "accepts", "log_prob", "tales"]


@dataclass(frozen=True, slots=True)
class Tale:
    text: str
    log_prob: float  # natural logarithm of the text's probability under the grammar


def tales(count: int, seed: int) -> Iterator[Tale]:
    """`count` stories; the same seed gives the same stories on every machine, and a smaller count their beginning."""
    random = Random(seed)
    for _ in range(count):
        writer = Writer(ROLES, random)
        tell_tale(writer)
        yield Tale("".join(writer.texts), writer.log_prob)


def log_prob(text: str) -> float:
    """The log-probability of a story, found from its text alone; raises NotATale where it is none."""
    return Reader(ROLES, text).read(tell_tale)


def accepts(text: str) -> bool:
    """Whether the grammar could have written exactly this text."""
    try:
        log_prob(text)
    except NotATale:
        return False
    return True
