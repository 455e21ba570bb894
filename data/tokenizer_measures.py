"""How well a tokenizer does on a text: compression, coverage, what is unknown or never used, fertility by script.

Uses numpy; of ours `data.tokenizer_report` and `data.tokenizer_words`. Every share is of something that is counted, and
says of what; counts over a corpus are taken on samples of a stated size.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.tokenizer_report import Vocabulary, cut
from data.tokenizer_words import Words, by_script, most_different, tokens_of, whole_words, words_of

if TYPE_CHECKING:
    from data.snapshots import Corpus
    from data.tokenizer import Tokenizer

SAMPLE = 2_000_000  # characters that compression and use are measured on
WORDS_SAMPLE = 500_000  # characters that words are counted in, token by token
ROUND_TRIP = 200_000  # characters that are decoded again
EXAMPLE = 160  # characters of a text that a comparison shows cut up
LONGEST_ENTRIES = 20  # that are listed
CONTINUES = range(0x80, 0xC0)  # bytes that go on with a character of UTF-8


def measure(tokenizer: "Tokenizer", corpus: "Corpus") -> dict:
    """What a report says: validation text is measured on, but for the use of entries, which is training's."""
    vocabulary = Vocabulary(tokenizer)
    texts, sample = list(corpus.texts("validation", SAMPLE)), list(corpus.texts("train", SAMPLE))
    used = vocabulary.encoder.count(sample)
    found = compare(vocabulary, texts, shortened(texts, WORDS_SAMPLE))
    found.pop("example")
    validation_bytes = found.pop("bytes")
    return {
        **{name: found[name] for name in found if name not in ("name", "vocab_size", "tokens", "words")},
        "validation_bytes": validation_bytes,
        "unused_entries": int((used == 0).sum()),
        "unused_measured_on_characters": sum(map(len, sample)),
        "longest_entries": longest(vocabulary, used),
        "round_trip": round_trip(tokenizer, shortened(texts, ROUND_TRIP)),
    }


def compare_on(vocabulary: Vocabulary, texts: Iterable[str]) -> dict:
    """How well it does on texts: compression, coverage, shares, scripts."""
    texts = list(texts)
    return compare(vocabulary, texts, shortened(texts, WORDS_SAMPLE))


def compare_two(left: Vocabulary, right: Vocabulary, texts: Iterable[str]) -> list[dict]:
    """Both on the same texts, each row with its `longer_words`: those that it cuts into more tokens than the other."""
    texts = list(texts)
    few = shortened(texts, WORDS_SAMPLE)
    words = words_of(few)
    counts = [tokens_of(vocabulary, few, words) for vocabulary in (left, right)]
    longer = most_different(words, *counts)
    return [
        {**row_on(vocabulary, texts, words, tokens), "longer_words": more}
        for vocabulary, tokens, more in zip((left, right), counts, longer, strict=True)
    ]


def compare(vocabulary: Vocabulary, texts: Sequence[str], few: Sequence[str]) -> dict:
    words = words_of(few)
    return row_on(vocabulary, texts, words, tokens_of(vocabulary, few, words))


def row_on(vocabulary: Vocabulary, texts: Sequence[str], words: Words, tokens: np.ndarray) -> dict:
    """One tokenizer's figures.

    Args:
        words, tokens: of a part of the texts, as `data.tokenizer_words` counts them.

    Returns:
        `coverage.characters`: the share of the characters that lie in entries for whole characters, neither spelled by
        bytes nor unknown. `coverage.words`: the share of words (runs of letters) that are not cut. `unknown_share` and
        `byte_share`: of the tokens.
    """
    counts = vocabulary.encoder.count(texts)
    used = {vocabulary.entries[number]: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
    unknown = vocabulary.tokenizer.tokenizer.unk_token_id
    total, size = max(1, int(counts.sum())), sum(len(text.encode()) for text in texts)
    whole = spelled = 0
    for entry, count in used.items():
        if entry.id == unknown:
            spelled += count
        elif entry.spells_bytes:
            spelled += count * sum(byte not in CONTINUES for byte in entry.data)  # each character once, by its lead
        else:
            whole += count * len(entry.text)
    word_count = sum(len(text.split()) for text in texts)
    return {
        "name": vocabulary.tokenizer.name,
        "vocab_size": len(vocabulary.entries),
        "tokens": int(counts.sum()),
        "bytes": size,
        "words": word_count,
        "bytes_per_token": size / total,
        "tokens_per_word": total / max(1, word_count),
        "unknown_share": sum(count for entry, count in used.items() if entry.id == unknown) / total,
        "byte_share": sum(count for entry, count in used.items() if entry.spells_bytes) / total,
        "coverage": {"characters": whole / max(1, whole + spelled), "words": whole_words(words, tokens)},
        "scripts": by_script(words, tokens),
        "example": [token.text for token in cut(vocabulary, texts[0][:EXAMPLE]).tokens],
    }


def shortened(texts: Sequence[str], characters: int) -> list[str]:
    """A part of the texts of about so many characters, spread over all of them."""
    total = sum(map(len, texts))
    step = max(1, -(-total // characters))
    return [text[:characters] for text in texts[::step]]


def longest(vocabulary: Vocabulary, used: np.ndarray) -> list[dict]:
    """The entries of most characters, reserved ones aside, and how often each is used."""
    entries = [entry for entry in vocabulary.entries.values() if not entry.reserved and not entry.spells_bytes]
    entries.sort(key=lambda entry: (-len(entry.text), entry.id))
    return [
        {"id": entry.id, "text": entry.text, "characters": len(entry.text), "times": int(used[entry.id])}
        for entry in entries[:LONGEST_ENTRIES]
    ]


def round_trip(tokenizer: "Tokenizer", texts: Sequence[str]) -> dict:
    """Whether texts come back from their tokens: how many were tried, how many are others then."""
    backend = tokenizer.tokenizer
    changed = 0
    for text in texts:
        ids = backend.encode(text, add_special_tokens=False, split_special_tokens=True)
        changed += backend.decode(ids, clean_up_tokenization_spaces=False) != text
    return {"texts": len(texts), "characters": sum(map(len, texts)), "changed": changed}
