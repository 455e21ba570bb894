"""The primer: a corpus of five areas, each small enough to be learnt in minutes and to be seen when it is forgotten.

Uses `data.primer_facts`, `data.tales`; standard library else. A document is a tale, or some lines of one area: sums and
differences, what follows from two comparisons, facts about the world, or Python and its values. Each line is an item,
a prompt and its answer. A part of the items is never written, in neither split: who answers these has learnt more
than to recite. Facts are the exception, since nobody can know a fact that was never told.

The probability of a text is exact. The area is drawn by its odds, then each line by itself: a group of the area evenly,
and an item of the group evenly. All areas have other lines, so a text can have come about in one way only.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from random import Random
from typing import NamedTuple
from zlib import crc32

from data import tales
from data.primer_facts import CAPITALS, COLOURS, SOUNDS
from data.tales_plots import CHILDREN

LARGEST = 20  # of the numbers that are added or taken away
COMPARISONS = ("taller", "shorter", "older", "younger", "faster", "slower")
LENGTHS = (2, 3, 4)  # of the lists in the code
EXPRESSIONS = {"{}[0]": lambda x: x[0], "{}[-1]": lambda x: x[-1], "len({})": len, "max({})": max, "min({})": min}
HELD_OUT = 8  # one item in so many is never written
TALE_ODDS = 8  # how often a document is a tale, against the odds of the areas


class Item(NamedTuple):
    """A line of a document: what is asked, what is to follow, and what ends the sentence behind it."""

    prompt: str
    answer: str
    end: str = ""

    @property
    def line(self) -> str:
        return self.prompt + self.answer + self.end


@dataclass(frozen=True)
class Area:
    """What one kind of document is made of.

    Attributes:
        odds: how often such a document comes, against the others' and TALE_ODDS.
        lines: items in a document.
        groups: of items that are written; a line is of each group equally often.
        held_out: items that are never written.
    """

    odds: int
    lines: int
    groups: tuple[tuple[Item, ...], ...]
    held_out: tuple[Item, ...] = ()

    @property
    def taught(self) -> tuple[Item, ...]:
        return tuple(item for group in self.groups for item in group)


def is_held_out(key: str) -> bool:
    """By a checksum, which is the same on every machine and for every seed."""
    return crc32(key.encode()) % HELD_OUT == 0


def divided(groups: Sequence[Sequence[tuple[str, Item]]], odds: int, lines: int) -> Area:
    """An area of groups of (what decides whether it is held out, item)."""
    taught = tuple(tuple(item for key, item in group if not is_held_out(key)) for group in groups)
    return Area(odds, lines, taught, tuple(item for group in groups for key, item in group if is_held_out(key)))


def arithmetic() -> Area:
    """Sums and differences of small numbers; 7 + 5 may be held out where 5 + 7 is not."""
    numbers = range(LARGEST + 1)
    sums = [(f"{a} + {b} =", f" {a + b}") for a, b in product(numbers, repeat=2)]
    differences = [(f"{a} - {b} =", f" {a - b}") for a, b in product(numbers, repeat=2) if a >= b]
    return divided([[(asked, Item(asked, answer)) for asked, answer in group] for group in (sums, differences)], 4, 10)


def reasoning() -> Area:
    """What follows about the first and the last of three children from two comparisons; held out by the three."""
    groups = []
    for word in COMPARISONS:
        threes = list(permutations(map(str, CHILDREN), 3))
        prompts = [f"If {a} is {word} than {b} and {b} is {word} than {c}, {a} is {word} than" for a, b, c in threes]
        keys = [" ".join(sorted(three)) for three in threes]
        groups.append([(k, Item(p, f" {c}", ".")) for k, p, (*_, c) in zip(keys, prompts, threes, strict=True)])
    return divided(groups, 7, 4)


def knowledge() -> Area:
    """Facts: capitals, colours, and what animals say."""
    capitals = tuple(Item(f"The capital of {country} is", f" {city}", ".") for country, city in CAPITALS.items())
    colours = tuple(Item(f"The colour of {thing} is", f" {colour}", ".") for thing, colour in COLOURS.items())
    sounds = tuple(Item(f"The {animal} says", f" {sound}", ".") for animal, sound in SOUNDS.items())
    return Area(2, 8, (capitals, colours, sounds))


def code() -> Area:
    """Expressions of Python as its prompt shows them, with their values; held out by the list, or by the comparison."""
    groups = []
    for expression, value in EXPRESSIONS.items():
        for length in LENGTHS:
            lists = [list(digits) for digits in product(range(10), repeat=length)]
            groups.append([(str(one), shown(expression.format(one), value(one))) for one in lists])
    for sign, holds in (("<", operator.lt), (">", operator.gt)):
        pairs = list(product(range(10), repeat=2))
        groups.append([(f"{a} {sign} {b}", shown(f"{a} {sign} {b}", holds(a, b))) for a, b in pairs])
    return divided(groups, 4, 6)


def shown(expression: str, value: object) -> Item:
    """As Python's prompt shows them."""
    return Item(f">>> {expression}\n", repr(value))


@cache
def areas() -> dict[str, Area]:
    """All but the tales, by name."""
    return {area.__name__: area() for area in (arithmetic, reasoning, knowledge, code)}


def documents(count: int, seed: int) -> Iterator[tuple[str, float]]:
    """`count` texts, each with the logarithm of its probability.

    The same seed gives the same ones, and a smaller count their beginning.
    """
    random = Random(seed)
    choices = [area for area in (*areas().values(), None) for _ in range(area.odds if area else TALE_ODDS)]
    for _ in range(count):
        area = pick(random, choices)
        if area is None:
            tale = next(tales.tales(1, random.getrandbits(32)))
            yield tale.text, tale.log_prob + math.log(TALE_ODDS / len(choices))
            continue
        log_prob, lines = math.log(area.odds / len(choices)), []
        for _ in range(area.lines):
            group = pick(random, area.groups)
            lines.append(pick(random, group).line)
            log_prob -= math.log(len(area.groups) * len(group))
        yield "\n".join(lines), log_prob


def pick(random: Random, choices: Sequence):
    """One of them, each as likely. `random()` alone gives the same sequence in every version of Python."""
    return choices[int(random.random() * len(choices))]
