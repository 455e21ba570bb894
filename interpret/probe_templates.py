"""The labelled sets that come with the lab, each written by a template: a text, a place in it, its label, its type.

May import `data.tales`; standard library else. The type is what a control task hands out labels by: the word that
decides the label, or, where none does, a word of the text that has nothing to do with it.
"""

from collections.abc import Callable
from random import Random

from data.tales import tales

Written = tuple[str, str, str, str]
"""(text, the place as it stands there last, label, type)"""


def _words(text: str) -> list[str]:
    return text.split()


NOUNS = _words(
    "key boy girl farmer teacher book letter picture road ship horse doctor window table garden bottle singer river "
    "train flower lamp brother driver painter"
)
JOINTS = ("near", "behind", "beside", "above", "with", "under")
THINGS = _words("film soup song room book game walk party cake story trip house")
GOOD = _words(
    "wonderful lovely delightful excellent charming beautiful splendid brilliant pleasant superb great perfect"
)
BAD = _words("terrible awful dreadful horrible boring ugly dull poor nasty unpleasant bad useless")
SPEAKERS = ("I think", "She said", "We thought", "He wrote", "They told us", "My friend said")
PIECES = {  # what a piece can be written with; no word is a part of another
    "small letters": _words(
        "stone apple cloud chair bread mouse sand moon paper rain glass leaf fish wool clock snow tooth hill nail "
        "rope coin milk door hat salt"
    ),
    "digits": _words("20 41 73 80 102 125 157 186 239 314 404 447 568 671 729 893 905 1056 3182 1969"),
    "mark": _words(", . ; : ! ? + = * / % &"),
}
PIECES["capital"] = [word.capitalize() for word in PIECES["small letters"]]
PLACES = _words("beach farm market lake river forest garden park")
HEROES = {
    **dict.fromkeys(_words("Anna Clara Ella Ivy Jane Lily Mia Nora Ruby Zoe"), "girl"),
    **dict.fromkeys(_words("Ben Finn Hugo Jack Leo Max Oscar Sam Theo Tom"), "boy"),
}
PRONOUNS = ("he", "she", "him", "her", "his")
HOME = "home from the"


def number(random: Random) -> Written:
    """The key near the cabinets …: the noun that a verb would agree with, with another of either number in between."""
    head, other = random.sample(NOUNS, 2)
    many, others = random.random() < 0.5, random.random() < 0.5
    subject = head + "s" * many
    text = f"The {subject} {random.choice(JOINTS)} the {other + 's' * others}"
    return text, text.split()[-1], "plural" if many else "singular", subject


def sentiment(random: Random) -> Written:
    """What is thought of something; half of the sentences say "not", so that no word alone decides."""
    good, negated = random.random() < 0.5, random.random() < 0.5
    word = random.choice(GOOD if good else BAD)
    text = f"{random.choice(SPEAKERS)} the {random.choice(THINGS)} was {'not ' * negated}{word}."
    return text, ".", "positive" if good != negated else "negative", word


def position(random: Random) -> Written:
    """How many words stand before one: six different words in any order, of which each is as likely everywhere."""
    words = random.sample(PIECES["small letters"], 6)
    place = random.randrange(6)
    text = " ".join(words)
    return text, words[place], f"word {place + 1}", words[place]


def characters(random: Random) -> Written:
    """What the last of six pieces is written with: small letters, a capital, digits, or a mark."""
    label = random.choice(list(PIECES))
    piece = random.choice(PIECES[label])
    others = random.sample([other for pieces in PIECES.values() for other in pieces if other != piece], 5)
    return " ".join([*others, piece]), piece, label, piece


def tales_hero(random: Random) -> Written:
    """Who a tale is about, a girl or a boy, just before the first "he" or "she"; nobody else was named by then."""
    while True:
        tale, hero = _tale(random)
        words = [word.strip('.,!?"') for word in tale.split()]
        told = next((i for i, word in enumerate(words) if word.lower() in PRONOUNS), 0)
        if [word for word in words[:told] if word in HEROES] == [hero]:
            before = tale.split()[:told]
            return " ".join(before), before[-1], HEROES[hero], hero


def tales_place(random: Random) -> Written:
    """Where a tale happened, at the word before the place is named again: "They walked home from the"."""
    while True:
        tale, hero = _tale(random)
        before, found, after = tale.partition(f" {HOME} ")
        if found:
            place = next(place for place in PLACES if after.startswith(place))
            return f"{before} {HOME}", "the", place, hero


def _tale(random: Random) -> tuple[str, str]:
    """A tale that no corpus begins with, and its hero, the first name in it."""
    tale = next(tales(1, random.randrange(10**6, 10**9))).text
    names = (word.strip('.,!?"') for word in tale.split())
    return tale, next(name for name in names if name in HEROES)


TEMPLATES: dict[str, tuple[str, Callable[[Random], Written]]] = {
    "number": ("whether the subject is singular or plural, read at another noun behind it", number),
    "sentiment": ("whether a sentence praises or blames, with and without “not”, read at its end", sentiment),
    "position": ("the how-manieth of six words in any order a word is", position),
    "characters": ("what a piece is written with: small letters, a capital, digits, a mark", characters),
    "tales-hero": ("whether a tale is about a girl or a boy, read just before the first “he” or “she”", tales_hero),
    "tales-place": ("where a tale happened, read just before the place is named again", tales_place),
}
