"""How a tokenizer is trained, besides its kind and size: special entries, digits, a prefix space, normalisation.

Uses `tokenizers`; of ours only `data.console`. What an option does is part of the saved `tokenizer.json`, so that
AutoTokenizer does the same wherever the tokenizer goes. Without a normalisation a text still comes back exactly.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import Decoder
from tokenizers.pre_tokenizers import PreTokenizer

from data.console import nearest

NORMALIZATIONS = {
    "none": None,
    "nfc": normalizers.NFC,
    "nfkc": normalizers.NFKC,
    "lowercase": normalizers.Lowercase,
}
"""By name; all but `none` make one of texts that differ, which no decoder can undo (Unicode Annex 15)."""
SPECIAL_LIMIT = 32
LONGEST_SPECIAL = 100  # characters; what a careless pattern finds beyond is text, not a sign
LONGEST_PATTERN = 200


@dataclass(frozen=True)
class Options:
    """What is asked of a training; the defaults change nothing.

    Args:
        special_pattern: a regular expression; what it finds in the training text, most frequent first, are entries of
            their own that are never split.
        special_limit: the most of them.
        split_digits: each digit is a piece by itself, so that a number is read place by place (arXiv:2402.14903).
        prefix_space: a text begins with a space, so that its first word is the entry it is in the middle of a text.
        normalization: of NORMALIZATIONS.
    """

    special_pattern: str | None = None
    special_limit: int = SPECIAL_LIMIT
    split_digits: bool = False
    prefix_space: bool = False
    normalization: str = "none"

    def __post_init__(self):
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization {self.normalization!r} is none of them; {nearest(self.normalization, NORMALIZATIONS)}"
            )
        if self.special_limit < 1:
            raise ValueError(f"special_limit {self.special_limit} should be 1 or more")
        if self.special_pattern is not None:
            check_pattern(self.special_pattern)

    @property
    def loses(self) -> bool:
        """Whether different texts may become the same tokens."""
        return self.normalization != "none"

    def settings(self, kind: str) -> dict:
        """Those that change something of a tokenizer of this kind; none where nothing was asked."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(PLAIN, name)}
        if self.special_pattern is None:
            changed.pop("special_limit", None)
        if kind == "char":  # every digit is one already
            changed.pop("split_digits", None)
        return changed

    def suffix(self, kind: str) -> str:
        """What a tokenizer that is named after its corpus and kind is called besides."""
        changed = self.settings(kind)
        words = [word for name, word in SUFFIXES.items() if name in changed]
        return "".join(f"-{word}" for word in [*words, *([self.normalization] if self.loses else [])])


def flags(settings: dict) -> str:
    """The options of a tokenizer's recorded settings as `python -m data.tokenizer train` takes them."""
    given = []
    for name in vars(PLAIN):
        if name in settings:
            flag, value = f"--{name.replace('_', '-')}", settings[name]
            given += [flag] if value is True else [flag, shlex.quote(str(value))]
    return " ".join(given)


SUFFIXES = {"special_pattern": "special", "split_digits": "digits", "prefix_space": "space"}
PLAIN = Options()


def check_pattern(pattern: str) -> str:
    """The pattern itself where it can be searched for. Raises ValueError where it cannot."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of {len(pattern)} characters is too long: {LONGEST_PATTERN} are the most")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if compiled.fullmatch(""):
        raise ValueError(f"the pattern {pattern!r} also finds nothing at all: ask for one character or more")
    return pattern


def find_special(texts: Iterable[str], options: Options, reserved: Sequence[str]) -> dict[str, int]:
    """What the pattern finds, most frequent first, and how often; {} where no pattern is asked for.

    A reserved entry that is spelled out stays text: it must never be made from text. Raises ValueError where nothing
    is found.
    """
    if options.special_pattern is None:
        return {}
    pattern = re.compile(options.special_pattern)
    counts = Counter(match.group() for text in texts for match in pattern.finditer(text))
    kept = {found: n for found, n in counts.items() if 0 < len(found) <= LONGEST_SPECIAL and found not in reserved}
    if not kept:
        raise ValueError(f"the pattern {options.special_pattern!r} finds nothing in the training text")
    return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0]))[: options.special_limit])


def between(texts: Iterable[str], special: Iterable[str]) -> Iterator[str]:
    """The texts without the special entries, in the parts that these leave: what the other entries are learnt from."""
    longest_first = sorted(special, key=len, reverse=True)  # as the library matches them
    if not longest_first:
        yield from texts
        return
    splitter = re.compile("|".join(map(re.escape, longest_first)))
    for text in texts:
        yield from filter(None, splitter.split(text))


def set_options(backend: Backend, options: Options, special: Sequence[str]) -> Backend:
    """Normaliser, pre-tokens and decoder of an untrained tokenizer, as the options ask."""
    steps = [NORMALIZATIONS[options.normalization]()] if options.loses else []
    if options.prefix_space:
        steps.append(normalizers.Prepend(" "))
        backend.decoder = without_prefixes(backend.decoder, special)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    if options.split_digits and backend.pre_tokenizer is not None:
        backend.pre_tokenizer = digits_apart(backend.pre_tokenizer)
    return backend


def digits_apart(pre_tokenizer: PreTokenizer) -> PreTokenizer:
    """Digits first: behind the byte alphabet, bytes of other characters would look like digits."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizer])


def without_prefixes(decoder: Decoder, special: Sequence[str]) -> Decoder:
    """A decoder that takes back what Prepend puts before a text and, as it does, after each special entry.

    Raises ValueError where an entry holds white space: then a space of the text could be taken for one put there.
    """
    spaced = [one for one in special if re.search(r"\s", one)]
    if spaced:
        raise ValueError(
            f"the pattern finds {spaced[0]!r}, which holds white space: with prefix_space a text would not come back "
            "exactly; ask for a pattern without, or leave prefix_space out"
        )
    steps = [decoder]
    if special:
        steps.append(decoders.Replace(Regex(f"(?<={'|'.join(map(re.escape, special))}) "), ""))
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])


def add_special(backend: Backend, special: Iterable[str]) -> Backend:
    """Entries that are found in any text before it is normalised or cut.

    To the library they are not `special`: such entries vanish where text is decoded and are not looked for in text
    that is somebody else's, and these are part of the text.
    """
    backend.add_tokens([AddedToken(one, special=False, normalized=False) for one in special])
    return backend
