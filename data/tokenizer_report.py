"""What a person looks at in a tokenizer: its vocabulary, how it cuts a text, and where another one cuts it otherwise.

Uses `tokenizers` through `data.encoding`; of ours also `data.sources` and `data.workspace`. An entry is
shown by the bytes it stands for in a text, whatever alphabet its vocabulary spells them in, so that a cut inside a
character can be seen.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from data.encoding import Encoder
from data.sources import sound
from data.workspace import Workspace, read_json

if TYPE_CHECKING:
    from data.tokenizer import Tokenizer

LONGEST = 5_000  # characters of a text that are cut up for the eye: each token is an element of the page
PAGE = 25  # entries of a vocabulary that are shown at a time
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "▁"  # SentencePiece's sign for one, U+2581


@dataclass(frozen=True)
class Entry:
    """One entry of a vocabulary."""

    id: int
    piece: str  # as the vocabulary spells it
    data: bytes  # what it stands for in a text
    reserved: bool  # never made from text: it ends documents, separates turns
    fallback: bool  # `<0xNN>`: one byte of what has no entry of its own

    @property
    def text(self) -> str:
        """Its bytes as text; those that are no whole character as \\xNN."""
        return self.data.decode("utf-8", "backslashreplace")

    @property
    def spells_bytes(self) -> bool:
        """Whether it stands for bytes rather than for characters."""
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError:
            return True
        return self.fallback


class Vocabulary:
    """A tokenizer's entries, by id, and its encoder. Ids of a foreign one may have gaps."""

    def __init__(self, tokenizer: "Tokenizer"):
        self.tokenizer = tokenizer
        backend = tokenizer.tokenizer.backend_tokenizer
        self.encoder = Encoder(backend)
        added = backend.get_added_tokens_decoder()
        to_bytes = spelling(json.loads(backend.to_str())["decoder"])
        self.entries: dict[int, Entry] = {}
        for piece, number in sorted(backend.get_vocab().items(), key=lambda item: item[1]):
            literal = number in added  # spelled as it is, whatever the alphabet of the others
            data = piece.encode() if literal else to_bytes(piece)
            fallback = not literal and BYTE.fullmatch(piece) is not None and len(data) == 1
            self.entries[number] = Entry(number, piece, data, literal and added[number].special, fallback)

    def find(self, search: str, start: int = 0, size: int = PAGE) -> tuple[list[Entry], int]:
        """(`size` entries from the `start`-th on, how many there are) of those with `search` in them, or as id."""
        found = [
            entry
            for entry in self.entries.values()
            if search in entry.text or search in entry.piece or search.strip() == str(entry.id)
        ]
        return found[start : start + size], len(found)


def open_vocabulary(name: str, workspace: Workspace) -> Vocabulary:
    """A tokenizer by name, as `data.tokenizer.load_tokenizer` finds it; kept open while its file is the same."""
    from data.tokenizer import saved_versions  # imports transformers, seconds, and this module

    versions = saved_versions(name, workspace)
    file = (versions[-1] if versions else Path(name)) / "tokenizer.json"
    return _open_vocabulary(name, workspace.root, file, file.stat().st_mtime_ns if file.is_file() else None)


@lru_cache(maxsize=8)
def _open_vocabulary(name: str, root: Path, file: Path, written: int | None) -> Vocabulary:
    from data.tokenizer import load_tokenizer

    return Vocabulary(load_tokenizer(name, Workspace(root)))


@dataclass(frozen=True)
class Cut:
    """A text as tokens. `exact` where their bytes are the text's, so that places in it can be compared."""

    tokens: list[Entry]
    characters: int
    bytes: int
    exact: bool

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / len(self.tokens)


def spelling(decoder: dict | None) -> Callable[[str], bytes]:
    """How a vocabulary with this decoder spells bytes: GPT-2's alphabet, or characters with SentencePiece's signs."""
    steps = (decoder or {}).get("decoders") or [decoder or {}]
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return lambda piece: bytes(BYTE_OF[sign] for sign in piece) if set(piece) <= set(BYTE_OF) else piece.encode()
    spaces = "Metaspace" in kinds or any(step.get("pattern") == {"String": SPACE} for step in steps)

    def to_bytes(piece: str) -> bytes:
        byte = BYTE.fullmatch(piece) if "ByteFallback" in kinds else None
        return bytes.fromhex(byte[1]) if byte else (piece.replace(SPACE, " ") if spaces else piece).encode()

    return to_bytes


def gpt2_alphabet() -> dict[str, int]:
    """The byte that each sign of a byte-level vocabulary stands for (Radford et al. 2019, `bytes_to_unicode`).

    Printable bytes stand for themselves, the others are counted from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF = gpt2_alphabet()


def cut(vocabulary: Vocabulary, text: str) -> Cut:
    """A text as tokens. Raises ValueError where there is nothing to cut."""
    if not text:
        raise ValueError("there is nothing to cut: the text is empty")
    data = sound(text, "the text").encode()
    tokens = [vocabulary.entries[number] for number in vocabulary.encoder.encode(text)]
    if not tokens:
        raise ValueError("this tokenizer makes no tokens of the text")
    written = b"".join(token.data for token in tokens)
    if written == b" " + data and tokens[0].data.startswith(b" "):  # SentencePiece's space before a text
        first = tokens[0]
        tokens[0] = Entry(first.id, first.piece, first.data[1:], first.reserved, first.fallback)
        written = data
    return Cut(tokens, len(text), len(data), written == data)


def differences(left: Cut, right: Cut) -> list[tuple[list[Entry], list[Entry]]]:
    """The stretches of a text that two tokenizers cut differently, between places where both cut."""
    assert left.exact and right.exact and left.bytes == right.bytes, "places are compared in the same bytes"
    common = set(ends(left)) & set(ends(right))
    pairs = zip(stretches(left, common), stretches(right, common), strict=True)
    return [(ours, theirs) for ours, theirs in pairs if len(ours) > 1 or len(theirs) > 1]


def ends(one: Cut) -> list[int]:
    """Where in the text, in bytes, each token ends."""
    return list(accumulate(len(token.data) for token in one.tokens))


def stretches(one: Cut, common: set[int]) -> list[list[Entry]]:
    found, open_ = [], []
    for token, end in zip(one.tokens, ends(one), strict=True):
        open_.append(token)
        if end in common:
            found.append(open_)
            open_ = []
    return found


def describe(tokenizer: "Tokenizer") -> dict:
    """The report of one that the lab trained; of any other, what can be seen."""
    return tokenizer.report or {
        "name": tokenizer.name,
        "sha256": tokenizer.sha256,
        "vocab_size": len(tokenizer.tokenizer),
        "settings": {"kind": type(tokenizer.tokenizer).__name__},
    }


def list_tokenizers(workspace: Workspace) -> list[dict]:
    """The reports of those in the workspace, newest first; what cannot be read is left out."""
    reports = []
    for path in (workspace.root / "tokenizers").glob("[!.]*@v*/report.json"):
        try:
            reports.append({**read_json(path), "name": path.parent.name})
        except (OSError, ValueError):
            continue
    return sorted(reports, key=lambda report: (report.get("created_at", ""), report["name"]), reverse=True)
