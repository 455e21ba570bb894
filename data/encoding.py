"""Text to ids on all cores, in chunks, exactly as the tokenizer would encode each document whole.

Uses `tokenizers` and numpy; nothing of ours. The library encodes the texts of a batch in parallel, but one text on one
core: so a long text is cut, only at places that provably cannot change its ids, and documents are gathered into chunks.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from tokenizers import Tokenizer as Backend

PIECE = 1 << 14  # characters: small enough to share a book among cores, large enough that the cuts cost nothing
CHUNK = 1 << 20  # characters a call: enough work for every core, little memory

# GPT-2's pattern takes white space only at the head of a pre-token, so one always begins where a space follows a
# letter; and it looks ahead only from white space, so nothing before such a place depends on what comes after it.
BEFORE_SPACE = re.compile(r"(?<=\w)(?=[ \n])")
ANYWHERE = re.compile("")
GPT2_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


class Encoder:
    """A tokenizer that reads text and nothing but text: the literal `<|endoftext|>` is thirteen characters to it."""

    def __init__(self, backend: Backend):
        state = json.loads(backend.to_str())
        self.backend = Backend.from_str(backend.to_str())  # a copy, so that the caller's own settings stay
        self.backend.encode_special_tokens = True
        self.backend.no_truncation()
        self.backend.no_padding()
        self.cut = where_to_cut(state)

    def chunks(self, texts: Iterable[str], end: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids, ends) of successive parts of the stream; `ends` are the places in `ids` where a document is over.

        Args:
            end: an id to append to every document.
        """
        pieces: list[tuple[str, bool]] = []
        size = 0
        for text in texts:
            for piece, last in self.pieces(text):
                pieces.append((piece, last))
                size += len(piece)
                if size >= CHUNK:
                    yield self._encode(pieces, end)
                    pieces, size = [], 0
        if pieces:
            yield self._encode(pieces, end)

    def pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in parts, each with whether it is the last."""
        start = 0
        while self.cut is not None and len(text) - start > PIECE:
            found = self.cut.search(text, start + PIECE)
            if found is None or found.start() == len(text):
                break
            yield text[start : found.start()], False
            start = found.start()
        yield text[start:], True

    def _encode(self, pieces: list[tuple[str, bool]], end: int | None) -> tuple[np.ndarray, np.ndarray]:
        encodings = self.backend.encode_batch_fast([piece for piece, _ in pieces], add_special_tokens=False)
        tail = [] if end is None else [end]
        parts = [e.ids + tail if last else e.ids for e, (_, last) in zip(encodings, pieces, strict=True)]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(parts), dtype=np.uint32, count=int(ends[-1]))
        return ids, ends[[last for _, last in pieces]]

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def count(self, texts: Iterable[str]) -> np.ndarray:
        """How often each entry of the vocabulary is used on `texts`."""
        counts = np.zeros(self.backend.get_vocab_size(), dtype=np.int64)
        for ids, _ in self.chunks(texts):
            counts += np.bincount(ids, minlength=len(counts))
        return counts


def where_to_cut(state: dict) -> re.Pattern | None:
    """A pattern for the places where a text may be cut, known for our own kinds and for GPT-2's; None: nowhere."""
    plain = not state["normalizer"] and all(token["special"] for token in state["added_tokens"])
    model, split = state["model"], state["pre_tokenizer"]
    if plain and split is None and model["type"] == "BPE" and not model["merges"]:
        return ANYWHERE  # characters, each by itself
    if plain and split is not None and GPT2_SPLIT.items() <= split.items():
        return BEFORE_SPACE
    return None
