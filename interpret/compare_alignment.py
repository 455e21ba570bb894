"""Two models' tokens of one text, brought together: units that both read whole.

Of ours here `interpret.prompt` and `writing`. With the same tokens a unit is a token. With different ones it reaches
from one place where both end a token to the next: attention to it is the sum over its tokens, and what it costs is the
sum of their losses, as the same letters are at stake (chain rule).

Shapes: U units; T tokens, of either model.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from interpret.prompt import MAX_TOKENS, Prompt, read_prompt
from interpret.writing import prompt_ids, spell

LEAST = 0.5  # share of the ends of tokens that must agree: below it, what is compared is hardly a token any more


@dataclass(frozen=True)
class Side:
    """One model's tokens up to where both agree, and where each unit's begin, (U,) in ascending order."""

    ids: list[int]
    starts: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """The last token of each unit (U,): by then the model has read all of it."""
        return np.append(self.starts[1:], len(self.ids)) - 1

    def sums(self, of_tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        """What is told by token, added up by unit."""
        return np.add.reduceat(of_tokens, self.starts, axis=axis)


@dataclass(frozen=True)
class Alignment:
    """Units of one text in two models.

    Attributes:
        units: each one's own spelling, (U,).
        share: of the places where tokens end, those that are the same in both, seen from the model with more of them;
            1 for the same tokens.
        same_tokens: whether both read exactly the same tokens.
        note: what was cut off or put together, as a sentence; "" for nothing.
    """

    units: list[str]
    first: Side
    second: Side
    share: float
    same_tokens: bool
    note: str

    @property
    def unit(self) -> str:
        """What one of them is called."""
        return "token" if self.same_tokens else "unit"


def align(first: tuple, second: tuple, text: str, max_tokens: int = MAX_TOKENS) -> Alignment:
    """The tokens of `text` in two models, each a (model, tokenizer).

    Raises ValueError where less than half of the places where tokens end are the same.
    """
    one, other = (read_prompt(*side, text, max_tokens) for side in (first, second))
    if one.ids == other.ids and one.tokens == other.tokens:
        side = Side(one.ids, np.arange(len(one.ids)))
        return Alignment(one.tokens, side, side, 1.0, True, one.note)
    spans = [token_ends(*side, text)[: len(read.ids)] for side, read in ((first, one), (second, other))]
    read = min(ends[-1] for ends in spans)  # a longer prompt is cut after so many tokens of each
    cuts = [{end: token for token, end in enumerate(ends) if end <= read} for ends in spans]  # the last to end there
    common = sorted(cuts[0].keys() & cuts[1].keys())
    share = len(common) / max(map(len, cuts))
    if share < LEAST or len(common) < 2:
        raise ValueError(
            f"the two models cut the text into tokens too differently: only {share:.0%} of the places where tokens end "
            f"are the same, and at least {LEAST:.0%} must be; compare models with the same tokenizer or similar ones"
        )
    sides = [_side(read_by, [cut[end] for end in common]) for read_by, cut in zip((one, other), cuts, strict=True)]
    units = [text[begin:end] for begin, end in pairwise([0, *common])]
    if common[0] == 0:
        units[0] = spell(first[1], one.ids[0])  # both begin with a token that stands for no letter
    notes = [
        f"The tokenizers differ: {share:.0%} of the places where tokens end are the same. What stands between two of "
        f"them is compared as one: {len(common):,} units of {len(sides[0].ids):,} and {len(sides[1].ids):,} tokens.",
        *sorted({one.note, other.note} - {""}),
    ]
    return Alignment(units, *sides, share, False, " ".join(notes))


def token_ends(model, tokenizer, text: str) -> list[int]:
    """Where in the text each token of `read_prompt` ends, in characters; 0 for one that begins every text.

    A token that is a part of a character ends where the character does. Raises ValueError for a tokenizer that cannot
    tell.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            "this tokenizer does not tell where in a text its tokens stand, so that they cannot be aligned with "
            "another's: compare models with the same tokenizer"
        )
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in read["offset_mapping"]]
    begins = len(prompt_ids(model, tokenizer, text)) - len(ends)
    return np.maximum.accumulate([0] * begins + ends).tolist()


def _side(read: Prompt, last: list[int]) -> Side:
    """The tokens up to the last common end; `last` is the last token of each unit."""
    return Side(read.ids[: last[-1] + 1], np.array([0, *(token + 1 for token in last[:-1])]))
