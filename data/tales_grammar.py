"""The machinery behind the tales: one grammar, walked by a writer that chooses and by a reader that recognises.

Standard library only; knows no word of any story (those are in `data/tales_plots.py`). A grammar is a Python function
that is handed a `Telling` and tells it sentences. Sentences are templates:

    {hero}            the word cast as the hero; on first mention it is drawn from the role's vocabulary, each word that
                      no other role has taken being equally likely; ever after it is the same word
    {hero.his}        another form of the same word: `his` or `her`, `in the park` for `the park`, ...
    [big|small]       one of the phrases, each equally likely

and `tell.choose(...)` takes one of several branches and says which, so that the story can go on accordingly.

Why a text has exactly one derivation: every choice is visible in the text at the very place where it is made, and
no alternative of a choice begins with another one (`_decide` of the reader checks it at every choice it meets). This
is a prefix code: read from the left, at most one alternative fits, always. Hence the probability of a text is the
product of the probabilities of its choices, and the reader recovers it from the text alone.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

# What can be wrong with a text: a word that has to agree with an earlier one (the first five), another word that
# was open to choice, a sentence that is not of the grammar, or a text that stops too early or too late.
KINDS = ("name", "pronoun", "animal", "object", "place", "detail", "structure", "ending")
PRONOUNS = {"he", "him", "his", "He", "His"}


class Piece(NamedTuple):
    """A run of fixed text, with the kind of mistake it is to write something else here."""

    text: str
    kind: str = "structure"


class Slot(NamedTuple):
    role: str
    form: str  # "" for the word itself


class Choice(NamedTuple):
    options: tuple["Template", ...]


Template = tuple[Piece | Slot | Choice, ...]


class Word:
    """A word of a vocabulary with its forms: `Word("name", "Mia", he="she", his="her")`."""

    def __init__(self, kind: str, text: str, **forms: str):
        self.forms = {"": Piece(text, kind)}
        self.forms |= {form: Piece(t, "pronoun" if form in PRONOUNS else kind) for form, t in forms.items()}

    def __str__(self) -> str:
        return self.forms[""].text


Roles = dict[str, tuple[Word, ...]]  # role -> the vocabulary it is cast from


@cache
def compile_template(template: str) -> Template:
    """Parse a template's text into pieces, slots and choices; choices do not nest."""
    parts: list[Piece | Slot | Choice] = []
    for text, role, form, options in re.findall(r"([^{}\[\]]+)|\{(\w+)\.?(\w*)\}|\[([^\[\]]+)\]", template):
        if text:
            parts.append(Piece(text))
        elif role:
            parts.append(Slot(role, form))
        else:
            parts.append(Choice(tuple(compile_template(option) for option in options.split("|"))))
    return tuple(parts)


class Telling:
    """One story in the making: who plays which role, and the log-probability of the choices so far."""

    def __init__(self, roles: Roles):
        self.roles = roles
        self.cast: dict[str, Word] = {}
        self.log_prob = 0.0
        self._space = ""  # sentences after the first are set off by one

    def __call__(self, template: str) -> None:
        """Tell a sentence."""
        self._walk(compile_template(self._space + template))
        self._space = " "

    def choose(self, odds: Sequence[int] | None = None, **branches: str) -> str:
        """Tell one of the branches, with these odds (equal when not given), and return its keyword."""
        options = tuple(compile_template(self._space + branch) for branch in branches.values())
        self._space = " "
        chosen = self._pick(options, odds)
        self._walk(options[chosen])
        return tuple(branches)[chosen]

    def alias(self, **roles: str) -> None:
        """Give a character a second role: `alias(winner="friend")` makes `{winner}` whoever the friend is."""
        self.cast |= {new: self.cast[old] for new, old in roles.items()}

    def is_cast(self, role: str, text: str) -> bool:
        """Whether this word plays the role: `is_cast("weather", "rainy")`."""
        return str(self.cast[role]) == text

    def _walk(self, template: Template) -> None:
        for part in template:
            if isinstance(part, Piece):
                self._say(part)
            elif isinstance(part, Choice):
                self._walk(part.options[self._pick(part.options)])
            else:
                if part.role not in self.cast:
                    self._draw(part)
                self._say(self.cast[part.role].forms[part.form])

    def _draw(self, slot: Slot) -> None:
        taken = set(self.cast.values())
        free = [word for word in self.roles[slot.role] if word not in taken]
        self.cast[slot.role] = free[self._pick([(word.forms[slot.form],) for word in free])]

    def _pick(self, options: Sequence[Template], odds: Sequence[int] | None = None) -> int:
        odds = odds or (1,) * len(options)
        chosen = self._decide(options, odds)
        self.log_prob += math.log(odds[chosen] / sum(odds))
        return chosen

    def _say(self, piece: Piece) -> None:
        raise NotImplementedError

    def _decide(self, options: Sequence[Template], odds: Sequence[int]) -> int:
        raise NotImplementedError


class Writer(Telling):
    """Tells a story by chance. Its text is `"".join(writer.texts)`."""

    def __init__(self, roles: Roles, random: Random):
        super().__init__(roles)
        self.random = random
        self.texts: list[str] = []

    def _say(self, piece: Piece) -> None:
        self.texts.append(piece.text)

    def _decide(self, options: Sequence[Template], odds: Sequence[int]) -> int:
        # `random()` is the one method whose sequence Python promises to keep from version to version; `choices` and
        # `shuffle` are not, and the same seed must write the same corpus everywhere.
        ticket = self.random.random() * sum(odds)
        for index, share in enumerate(odds):
            ticket -= share
            if ticket < 0:
                return index
        return len(odds) - 1


class NotATale(ValueError):  # noqa: N818 (reads as what it says)
    """The grammar cannot derive the text. `kind` is one of KINDS, `position` the character where it fails."""

    def __init__(self, reason: str, position: int, kind: str):
        super().__init__(f"{reason} at character {position}")
        self.reason, self.position, self.kind = reason, position, kind


class Reader(Telling):
    """Follows a text through the grammar; raises NotATale at the first word that cannot be there."""

    def __init__(self, roles: Roles, text: str):
        super().__init__(roles)
        self.text = text
        self.position = 0

    def read(self, grammar: Callable[[Telling], None]) -> float:
        """The log-probability of the whole text under the grammar."""
        grammar(self)
        if self.position != len(self.text):
            raise NotATale("expected the end of the story", self.position, "ending")
        return self.log_prob

    def _say(self, piece: Piece) -> None:
        if not self.text.startswith(piece.text, self.position):
            raise self._mismatch([(piece,)])
        self.position += len(piece.text)

    def _decide(self, options: Sequence[Template], odds: Sequence[int]) -> int:
        heads = [self._head(option) for option in options]
        texts = tuple("".join(piece.text for piece in head) for head in heads)
        clash = _clash(texts)
        assert clash is None, f"a choice cannot be told from its text: {clash[0]!r} begins {clash[1]!r}"
        for index, text in enumerate(texts):
            if self.text.startswith(text, self.position):
                return index
        raise self._mismatch(heads)

    def _head(self, option: Template) -> tuple[Piece, ...]:
        """The text an option is known by: all of it up to its first open choice."""
        head = []
        for part in option:
            if isinstance(part, Slot) and part.role in self.cast:
                part = self.cast[part.role].forms[part.form]
            if not isinstance(part, Piece):
                break
            head.append(part)
        return tuple(head)

    def _mismatch(self, heads: Sequence[tuple[Piece, ...]]) -> NotATale:
        """Describe the failure at the first wrong word, as seen by the alternatives that the text follows furthest."""
        rest = self.text[self.position :]
        followed = [self._follow(head, rest) for head in heads]
        reach = max(distance for distance, _, _ in followed)
        expected = {word: kind for distance, kind, word in followed if distance == reach}
        found = _word(rest[reach:])
        if reach + len(found) == len(rest) and any(word.startswith(found) for word in expected):
            return NotATale("the story stops too early", len(self.text), "ending")
        # where words of several kinds could stand, the mistake is of the kind of the word that stands there
        kind = next((kind for kind in expected.values() if found in self._words(kind)), next(iter(expected.values())))
        what = f"the {kind} {next(iter(expected))!r}" if len(expected) == 1 else f"one of {', '.join(sorted(expected))}"
        return NotATale(f"expected {what.removeprefix('the structure ')}, found {found!r}", self.position + reach, kind)

    def _words(self, kind: str) -> set[str]:
        forms = (form for words in self.roles.values() for word in words for form in word.forms.values())
        return {piece.text for piece in forms if piece.kind == kind}

    @staticmethod
    def _follow(head: tuple[Piece, ...], rest: str) -> tuple[int, str, str]:
        """How far `rest` agrees with `head` in whole words, and the kind and text of the word where it stops."""
        start = 0
        for piece in head:
            for token in re.findall(r"\w+|\W", piece.text):
                if _word(rest[start:]) != token:
                    return start, piece.kind, token
                start += len(token)
        return start, "structure", ""


def _word(text: str) -> str:
    """The word or single mark that `text` begins with; empty at the end."""
    match = re.match(r"\w+|\W", text)
    return match.group() if match else ""


@cache
def _clash(heads: tuple[str, ...]) -> tuple[str, str] | None:
    """Two alternatives of which one begins the other, if there are any. Sorted, such a pair has a neighbouring one."""
    ordered = sorted(heads)
    return next(((a, b) for a, b in pairwise(ordered) if b.startswith(a)), None)
