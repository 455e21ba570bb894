"""The kinds of tokenizer that the lab trains; each gives back any Unicode text exactly, unless it is to normalise it.

Uses `tokenizers` and `transformers`; of ours `data.tokenizer_options` and `data.encoding` (the cuts that let a long
text train on all cores). The same texts and options give the same `tokenizer.json`, byte for byte. Reserved
entries come first, the same for every kind.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.encoding import Encoder
from data.tokenizer_options import PLAIN, Options, add_special, between, set_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, TURN, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
RESERVED = [PAD, END, TURN, TURN_END]
BYTES = 256
LARGEST = 1_000_000  # entries; the trainers reserve memory for all of them at once. Gemma's 262,144 are many
# ChatML: every turn between two reserved entries, so that a model can be taught to converse without a new vocabulary
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Bytes that begin or continue a character beyond ASCII in valid UTF-8; the others are never written
BEYOND_ASCII = [*range(0x80, 0xC0), *range(0xC2, 0xF5)]


@dataclass(frozen=True)
class Kind:
    train: Callable[[Iterable[str], int, Callable[[Backend], Backend]], Backend]
    """(texts, vocabulary size, what the options set on the untrained tokenizer) -> tokenizer"""
    about: str
    smallest: int | None
    """Least vocabulary; None where the text decides it."""


def train_char(texts: Iterable[str], _size: int, prepare: Callable[[Backend], Backend]) -> Backend:
    """One entry a character of the text; any other character is spelled by the bytes of its UTF-8.

    Only bytes that can be needed have an entry: those beyond ASCII, and the ASCII characters that the text lacks. An
    ASCII text thus makes 4 reserved + 128 + 115 = 247 entries, whatever it says.
    """
    backend = Backend(models.BPE(byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    normalize = prepare(backend).normalizer
    read = texts if normalize is None else map(normalize.normalize_str, texts)
    characters = sorted(set().union(*map(set, read)))
    missing = [code for code in range(0x80) if chr(code) not in set(characters)]
    entries = [*RESERVED, *characters, *(f"<0x{code:02X}>" for code in missing + BEYOND_ASCII)]
    # BPE without merges leaves characters alone, and is three times as fast as WordLevel here
    backend.model = models.BPE({entry: i for i, entry in enumerate(entries)}, merges=[], byte_fallback=True)
    return backend


def train_bpe(texts: Iterable[str], size: int, prepare: Callable[[Backend], Backend]) -> Backend:
    """Byte-level BPE with GPT-2's pre-tokens (Radford et al. 2019; arXiv:1508.07909), as llama.cpp can also read it."""
    backend = prepare(byte_level(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=RESERVED,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(in_pieces(texts, backend), trainer)
    return backend


def train_unigram(texts: Iterable[str], size: int, prepare: Callable[[Backend], Backend]) -> Backend:
    """Unigram language model (arXiv:1804.10959) over the same bytes and pre-tokens, so that it is as exact."""
    backend = prepare(byte_level(models.Unigram()))
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=RESERVED,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(in_pieces(texts, backend), trainer)
    return settle(backend)


def byte_level(model: models.Model) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def in_pieces(texts: Iterable[str], backend: Backend) -> Iterator[str]:
    """The trainer, too, reads different texts on different cores; pre-tokens are all it counts."""
    encoder = Encoder(backend)
    return (piece for text in texts for piece, _ in encoder.pieces(text))


def settle(backend: Backend) -> Backend:
    """Take the accidents of hash order out of a trained Unigram model.

    The trainer sums in the order of a hash map and hands the bytes it never saw scores just above the lowest, 1e-4
    apart, in that order. So: equal scores for those bytes, six digits for all, entries sorted by score and spelling.
    """
    state = json.loads(backend.to_str())
    entries = state["model"]["vocab"]
    reserved, rest = entries[: len(RESERVED)], entries[len(RESERVED) :]
    lowest = min(score for _, score in rest)
    accidental = lowest + BYTES * 1e-4
    scores = [(p, lowest if len(p) == 1 and score <= accidental else score) for p, score in rest]
    scores = [(piece, round(score, 6)) for piece, score in scores]
    state["model"]["vocab"] = [*reserved, *sorted(scores, key=lambda entry: (-entry[1], entry[0]))]
    return Backend.from_str(json.dumps(state))


KINDS = {
    "char": Kind(train_char, "one entry a character of the text", None),
    "bpe": Kind(train_bpe, "byte-level BPE, GPT-2's pre-tokens", len(RESERVED) + BYTES),
    "unigram": Kind(train_unigram, "byte-level Unigram, GPT-2's pre-tokens", len(RESERVED) + BYTES + 1),
}


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, options: Options = PLAIN, special: Sequence[str] = ()
) -> "PreTrainedTokenizerFast":
    """A tokenizer of a kind, ready to be saved. A text too short for `vocab_size` entries gives as many as it can.

    Args:
        special: what the options' pattern found, `data.tokenizer_options.find_special`; entries among `vocab_size`.
    """
    check_size(kind, vocab_size, len(special))
    backend = KINDS[kind].train(
        between(texts, special),
        vocab_size - len(special),
        lambda untrained: set_options(untrained, options, special),
    )
    from transformers import PreTrainedTokenizerFast  # seconds, which who only looks at KINDS need not wait for

    # no bos is put before a text, as in GPT-2, so that decode(encode(text)) is the text: who wants it puts it there
    return PreTrainedTokenizerFast(
        tokenizer_object=add_special(backend, special),
        pad_token=PAD,
        bos_token=END,
        eos_token=END,
        extra_special_tokens=[TURN, TURN_END],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,  # it would join " ." and "n 't"
        padding_side="left",  # a batch of prompts goes on at its right end
    )


def check_size(kind: str, vocab_size: int, special: int) -> None:
    """Raises ValueError for a vocabulary that cannot hold what it must, or is more than a machine can."""
    smallest = KINDS[kind].smallest
    if smallest is None:
        return
    if vocab_size < smallest + special:
        found = f" and {special} found by the pattern" if special else ""
        raise ValueError(
            f"vocab_size {vocab_size} is too small for {kind!r}: {BYTES} bytes and {len(RESERVED)} reserved entries"
            f"{found} need {smallest + special} at least"
        )
    if vocab_size > LARGEST:
        raise ValueError(f"vocab_size {vocab_size:,} is too large: {LARGEST:,} entries are the most")
