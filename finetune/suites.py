"""What a model is asked before, during and after it is tuned, so that it is seen when it forgets: five suites.

Uses `data.primer` and `data.tales`; of ours `finetune.suites_general`. Two levels: `primer` asks in the wording of the
corpus of that name, which a small base can learn in minutes; `general` asks plain questions of a model that has read
much. An answer is right or wrong (exact match); of the texts the perplexity is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from data.console import nearest
from data.primer import areas
from data.tales import tales
from finetune.suites_general import EXPRESSIONS, FACTS, PROSE, SUMS, SYLLOGISMS

Level = Literal["primer", "general"]
LEVELS = ("primer", "general")
COUNT = 100  # questions of a primer's suite at most: half a share of a hundred is known to ± 10 %
TALES, TALES_SEED = 50, 1_000_003  # no corpus is written from that seed
ALONE = "Reply with the answer alone."


class Item(NamedTuple):
    """A question: `prompt` for a model that goes on with a text, `message` for one that is spoken to."""

    prompt: str
    message: str
    answer: str


@dataclass(frozen=True)
class Suite:
    """One ability.

    Attributes:
        kind: `exact`: items; `perplexity`: texts.
        of_level: (level) -> the items or the texts.
    """

    about: str
    kind: Literal["exact", "perplexity"]
    of_level: Callable[[Level], tuple]


def of_level(level: Level, suite: str) -> tuple:
    """The items of a suite, or its texts. Raises ValueError where there is no such level or suite."""
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r} of the suites; {nearest(level, LEVELS)}")
    if suite not in SUITES:
        raise ValueError(f"there is no suite {suite!r}; {nearest(suite, SUITES)}")
    return SUITES[suite].of_level(level)


def of_primer(area: str) -> tuple[Item, ...]:
    """Of an area of the primer: items that were never written and others, half each where there are so many."""
    found = areas()[area]
    held_out = drawn(found.held_out, COUNT // 2)
    taught = drawn(found.taught, COUNT - len(held_out))
    return tuple(Item(item.prompt, item.prompt, item.answer.strip()) for item in (*held_out, *taught))


def drawn(items: tuple, count: int, seed: int = 0) -> list:
    """`count` of the items, or all where there are no more."""
    random = Random(seed)  # not its `sample`: only `random()` gives the same in every version of Python
    return [items[i] for i in sorted(range(len(items)), key=lambda _: random.random())[:count]]


def asked(question: str, answer: str) -> Item:
    return Item(f"Question: {question} {ALONE}\nAnswer:", f"{question} {ALONE}", answer)


def arithmetic(level: Level) -> tuple[Item, ...]:
    if level == "primer":
        return of_primer("arithmetic")
    return tuple(asked(f"What is {term}?", answer) for term, answer in SUMS.items())


def reasoning(level: Level) -> tuple[Item, ...]:
    if level == "primer":
        return of_primer("reasoning")
    return tuple(asked(question, answer) for question, answer in SYLLOGISMS.items())


def knowledge(level: Level) -> tuple[Item, ...]:
    if level == "primer":
        return of_primer("knowledge")
    return tuple(asked(question, answer) for question, answer in FACTS.items())


def code(level: Level) -> tuple[Item, ...]:
    if level == "primer":
        return of_primer("code")
    return tuple(asked(f"What does Python print for print({e})?", answer) for e, answer in EXPRESSIONS.items())


def text(level: Level) -> tuple[str, ...]:
    return tuple(tale.text for tale in tales(TALES, TALES_SEED)) if level == "primer" else PROSE


SUITES = {
    "arithmetic": Suite("sums and differences", "exact", arithmetic),
    "reasoning": Suite("what follows from two or three sentences", "exact", reasoning),
    "knowledge": Suite("facts", "exact", knowledge),
    "code": Suite("what Python makes of an expression", "exact", code),
    "text": Suite("plain text, read and not written", "perplexity", text),
}
