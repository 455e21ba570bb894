"""Words by script, and how many tokens each takes: where a tokenizer is generous and where it is not.

Uses numpy, `tokenizers` through `data.tokenizer_report`, and fontTools for a character's script (Unicode Annex 24).
A word is a run of letters of one script, their marks included; digits and signs make runs of their own, so that every
token but white space begins in exactly one run.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from fontTools.unicodedata import script, script_name

from data.tokenizer_report import Vocabulary

NUMBERS, SIGNS = "numbers", "signs"
NO_SCRIPT = {"Zyyy", "Zzzz"}  # common to all scripts, or not assigned
INHERITED = "Zinh"  # a mark that belongs to the letter before it
LISTED = 20  # words that are told of


@dataclass(frozen=True)
class Words:
    """The runs of some texts.

    Attributes:
        stream: the texts, a line end between two.
        begins, ends: of each run, places in the stream, (runs,) int64.
        scripts: of each run, the number of its script, (runs,).
        names: the scripts.
    """

    stream: str
    begins: np.ndarray
    ends: np.ndarray
    scripts: np.ndarray
    names: list[str]

    def text(self, run: int) -> str:
        return self.stream[self.begins[run] : self.ends[run]]


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str | None:
    """The script's name; `numbers`, `signs`, "" for white space, None for what goes with the character before it."""
    category = unicodedata.category(character)
    if character.isspace():
        return ""
    if category[0] == "N":
        return NUMBERS
    if category[0] not in "LM":
        return SIGNS
    code = script(character)
    return None if code == INHERITED else SIGNS if code in NO_SCRIPT else script_name(code)


def words_of(texts: Sequence[str]) -> Words:
    stream = "\n".join(texts)
    codes = np.frombuffer(stream.encode("utf-32-le"), dtype=np.uint32)
    distinct, which = np.unique(codes, return_inverse=True)
    found = [script_of(chr(code)) for code in distinct.tolist()]
    names = sorted({name for name in found if name} | {SIGNS})
    number = {"": -1, None: -2} | {name: i for i, name in enumerate(names)}
    kinds = np.array([number[name] for name in found], dtype=np.int64)[which]
    # a mark takes the kind of the last character that has one; after white space, or first of all, it is a sign
    last = np.maximum.accumulate(np.where(kinds == -2, 0, np.arange(len(kinds))))
    kinds = np.where((kinds == -2) & (kinds[last] < 0), number[SIGNS], kinds[last])
    bounds = np.flatnonzero(np.diff(kinds, prepend=-3, append=-3))
    begins, ends = bounds[:-1], bounds[1:]
    runs = kinds[begins] >= 0
    return Words(stream, begins[runs], ends[runs], kinds[begins[runs]], names)


def tokens_of(vocabulary: Vocabulary, texts: Sequence[str], words: Words) -> np.ndarray:
    """How many tokens begin in each run of the texts, (runs,); a space before a word belongs to the word."""
    encodings = vocabulary.encoder.backend.encode_batch(list(texts), add_special_tokens=False)
    places, begin = [np.zeros((0, 2), np.int64)], 0
    for text, encoding in zip(texts, encodings, strict=True):
        if encoding.offsets:
            places.append(np.array(encoding.offsets, dtype=np.int64) + begin)
        begin += len(text) + 1
    starts, stops = np.concatenate(places).T
    run = np.searchsorted(words.ends, starts, side="right")  # the first one that is not over where the token begins
    inside = run < len(words.begins)
    run, starts, stops = run[inside], starts[inside], stops[inside]
    return np.bincount(run[np.maximum(starts, words.begins[run]) < stops], minlength=len(words.begins))


def by_script(words: Words, tokens: np.ndarray) -> dict[str, dict]:
    """Fertility by script (arXiv:2012.15613): tokens per word, and the share of words that are not cut.

    Returns:
        By name, most words first: `words, characters, tokens, tokens_per_word, characters_per_token, whole`. Where a
        script puts no space between words (Han, Thai), a run is a phrase: characters per token is the figure there.
    """
    rows = {}
    for number, name in enumerate(words.names):
        here = words.scripts == number
        count, used = int(here.sum()), int(tokens[here].sum())
        if count:
            characters = int((words.ends - words.begins)[here].sum())
            rows[name] = {
                "words": count,
                "characters": characters,
                "tokens": used,
                "tokens_per_word": used / count,
                "characters_per_token": characters / max(1, used),
                "whole": float((tokens[here] <= 1).mean()),
            }
    return dict(sorted(rows.items(), key=lambda item: -item[1]["words"]))


def whole_words(words: Words, tokens: np.ndarray) -> float:
    """The share of words, numbers and signs aside, that are not cut; 0 where there are none."""
    letters = ~np.isin(words.scripts, [i for i, name in enumerate(words.names) if name in (NUMBERS, SIGNS)])
    return float((tokens[letters] <= 1).mean()) if letters.any() else 0.0


def most_different(words: Words, left: np.ndarray, right: np.ndarray) -> tuple[list[dict], list[dict]]:
    """(runs that take the left one more tokens in all, those that take the right one more), the largest sums first.

    Each is `word, times, tokens, other_tokens`, the last two summed over all times.
    """
    times, ours, theirs = Counter(), Counter(), Counter()
    different = {words.text(run) for run in np.flatnonzero(left != right).tolist()}
    for run, (mine, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        word = words.text(run)
        if word in different:
            times[word] += 1
            ours[word] += mine
            theirs[word] += other

    def listed(more: Counter, fewer: Counter) -> list[dict]:
        order = sorted((fewer[word] - more[word], word) for word in times if more[word] > fewer[word])[:LISTED]
        return [
            {"word": word, "times": times[word], "tokens": more[word], "other_tokens": fewer[word]} for _, word in order
        ]

    return listed(ours, theirs), listed(theirs, ours)
