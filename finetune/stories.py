"""The new task: somebody asks for a story with this child, that toy and the place, and gets one told.

Uses `data.tales`, whose grammar writes the answers and tells of any answer whether it is a story. Whether a wish is
fulfilled can thus be checked to the word: `fulfils`.
"""

import re
from collections.abc import Iterator, Sequence
from random import Random

from data.tales import accepts
from data.tales_grammar import Word, Writer
from data.tales_plots import ANIMALS, CHILDREN, FOODS, PLACES, ROLES, TOYS, tell_tale

BEGINNINGS = ("Tell me a story about", "Please tell me a story about", "I would like a story about")
AGAIN = ("Another one, please, about", "Now tell me one about", "And one about")
TWO_TURNS = 0.2  # share of the conversations in which a second story is asked for
WISHES = (1, 2, 3)  # besides the hero
PHRASES = {"hero": "{}", "friend": "{}", "toy": "a {}", "animal": "a {}", "food": "some {}"}
NAMED = frozenset(map(str, (*CHILDREN, *TOYS, *ANIMALS, *FOODS, *PLACES)))  # all that can be wished for


def examples(count: int, seed: int) -> Iterator[dict]:
    """`count` conversations, {"messages": [...]}, of one story asked for and told, or two.

    The same seed gives the same ones, and a smaller count their beginning.
    """
    random = Random(seed)
    for _ in range(count):
        messages = exchange(random, BEGINNINGS)
        if random.random() < TWO_TURNS:
            messages += exchange(random, AGAIN)
        yield {"messages": messages}


def exchange(random: Random, beginnings: Sequence[str]) -> list[dict]:
    """A request and the story that fulfils it: told first, and then asked for by what is in it."""
    tale = Writer(ROLES, random)
    tell_tale(tale)
    return [
        {"role": "user", "content": request(random, pick(random, beginnings), tale.cast)},
        {"role": "assistant", "content": "".join(tale.texts)},
    ]


def request(random: Random, beginning: str, cast: dict[str, Word]) -> str:
    """ "Tell me a story about Mia, a kite and a crow in the park.": the hero and some others of a story's cast."""
    others = [role for role in (*PHRASES, "place") if role in cast and role != "hero"]
    # not `sample`: only `random()` is promised to give the same sequence in every version of Python
    others = sorted(others, key=lambda _: random.random())[: pick(random, WISHES)]
    told = [PHRASES[role].format(cast[role]) for role in PHRASES if role in ("hero", *others)]
    where = f" {cast['place'].forms['at'].text}" if "place" in others else ""
    listed = " and ".join(filter(None, (", ".join(told[:-1]), told[-1])))
    return f"{beginning} {listed}{where}."


def pick(random: Random, choices: Sequence):
    return choices[int(random.random() * len(choices))]


def wishes(request: str) -> set[str]:
    """The children, toys, animals, foods and places that a request names."""
    return NAMED & words(request)


def fulfils(request: str, answer: str) -> bool:
    """Whether the answer is a whole story of the grammar, and all that was asked for is in it."""
    return wishes(request) <= words(answer) and accepts(answer)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
