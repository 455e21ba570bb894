"""Tokenizers by name: trained on a corpus, saved before, in any folder, or on the Hub.

Uses `transformers`; of ours the other modules of `data`. A trained tokenizer is a folder `tokenizers/<name>@vN` that
AutoTokenizer opens, with `report.json` beside it. The same corpus and settings give the version that is there; others
make the next one, whose parent is the last.
"""

import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data.console import cli, nearest
from data.encoding import Encoder
from data.snapshots import Corpus
from data.tokenizer_kinds import KINDS, train_tokenizer
from data.workspace import (
    SCHEMA,
    Workspace,
    check_name,
    new_folder,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_json,
)

ALGORITHM = 1  # raised when training changes, so that a tokenizer of the old way is not taken for one of the new
TRAIN_CHARACTERS = 10_000  # for each entry to be learnt; with 1,000, tales and Shakespeare are compressed as well
SAMPLE = 2_000_000  # characters that a report is measured on


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and where it came from. `sha256` is of what decides the ids: tokenizer.json and the eos token."""

    tokenizer: PreTrainedTokenizerFast
    name: str
    path: Path | None
    sha256: str
    report: dict | None = None

    @property
    def eos(self) -> int:
        return self.tokenizer.eos_token_id


def open_tokenizer(name: str, corpus: Corpus, vocab_size: int, workspace: Workspace) -> Tokenizer:
    """A tokenizer by name; one of the lab's own kinds is trained on the corpus unless that has been done.

    Args:
        name: `char`, `bpe` or `unigram`; a saved tokenizer (`NAME` for its newest version, or `NAME@vN`); a folder;
            a Hub id.
        vocab_size: of `bpe` and `unigram`; others have the size they have.
    """
    if name not in KINDS:
        return load_tokenizer(name, workspace)
    sized = f"{corpus.name}-{name}" + ("" if KINDS[name].smallest is None else f"-{vocab_size}")
    return train_version(sized, name, corpus, vocab_size, workspace)


def train_version(name: str, kind: str, corpus: Corpus, vocab_size: int, workspace: Workspace) -> Tokenizer:
    """The version of `name` with this corpus and these settings, trained now if there is none."""
    settings = {"kind": kind, "algorithm": ALGORITHM}
    if KINDS[kind].smallest is not None:
        settings["vocab_size"] = vocab_size
    versions = saved_versions(name, workspace)
    for path in versions:
        report = read_json(path / "report.json")
        if report["settings"] == settings and report["corpus"]["sha256"] == corpus.sha256:
            return open_folder(path, path.name)
    number = 1 + max((version_of(path) for path in versions), default=0)
    started = time.perf_counter()
    limit = TRAIN_CHARACTERS * vocab_size if "vocab_size" in settings else None
    tokenizer = train_tokenizer(kind, corpus.texts("train", limit), vocab_size)
    path = workspace.room("tokenizers") / f"{check_name(name, 'tokenizer')}@v{number}"
    with new_folder(path) as folder:
        tokenizer.save_pretrained(folder)
        report = {
            "schema": SCHEMA,
            "name": path.name,
            "sha256": fingerprint(tokenizer, folder),
            "corpus": {"name": corpus.name, "sha256": corpus.sha256},
            "settings": settings,
            "parent": versions[-1].name if versions else None,
            "vocab_size": len(tokenizer),
            **measure(tokenizer, corpus),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "report.json", report)
    fewer = " (the text gives no more)" if len(tokenizer) < settings.get("vocab_size", 0) else ""
    print(
        f"tokenizer  {path.name}: {len(tokenizer):,} entries{fewer}, {report['bytes_per_token']:.2f} bytes a token, "
        f"trained in {time.perf_counter() - started:.1f} s",
        file=sys.stderr,
    )
    return open_folder(path, path.name)


def measure(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> dict:
    """Compression of validation text, and how many entries the training text has no use for."""
    encoder = Encoder(tokenizer.backend_tokenizer)
    texts = list(corpus.texts("validation", SAMPLE))
    sample = list(corpus.texts("train", SAMPLE))
    used = encoder.count(sample)
    size = compression(encoder, texts)
    return {
        "bytes_per_token": size["bytes"] / size["tokens"],
        "tokens_per_word": size["tokens"] / max(1, size["words"]),
        "validation_bytes": size["bytes"],
        "unused_entries": int((used == 0).sum()),
        "unused_measured_on_characters": sum(map(len, sample)),
    }


def compression(encoder: Encoder, texts: Iterable[str]) -> dict:
    texts = list(texts)
    return {
        "tokens": int(encoder.count(texts).sum()),
        "bytes": sum(len(text.encode()) for text in texts),
        "words": sum(len(text.split()) for text in texts),
    }


def load_tokenizer(name: str, workspace: Workspace) -> Tokenizer:
    """A saved tokenizer, one in a folder, or one of the Hub."""
    versions = saved_versions(name, workspace)
    if versions:
        return open_folder(versions[-1], versions[-1].name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return open_folder(folder, folder.resolve().name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        known = [*KINDS, *(path.name for path in workspace.room("tokenizers").glob("[!.]*@v*"))]
        raise ValueError(
            f"no tokenizer {name!r} among kinds, saved ones and folders ({nearest(name, known)}), nor can it be had "
            f"from the Hub: {first_line(error)}"
        ) from error
    return checked(tokenizer, name, None)


def open_folder(folder: Path, name: str) -> Tokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the library raise
        raise ValueError(f"{folder} holds no tokenizer that transformers can open: {first_line(error)}") from error
    return checked(tokenizer, name, folder)


def checked(tokenizer, name: str, folder: Path | None) -> Tokenizer:
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer {name} has no tokenizer.json: open and save it with its fast class first")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"tokenizer {name} has no eos_token, which ends every document: set one and save it again")
    saved = folder / "report.json" if folder else None
    report = read_json(saved) if saved and saved.is_file() else None
    return Tokenizer(tokenizer, name, folder, fingerprint(tokenizer, folder), report)


def fingerprint(tokenizer: PreTrainedTokenizerFast, folder: Path | None) -> str:
    """Of the file where there is one, so that another version of the library, which may write it otherwise, agrees."""
    file = folder / "tokenizer.json" if folder else None
    if file and file.is_file():
        return sha256_json([sha256_file(file), tokenizer.eos_token])
    return sha256_json([sha256_bytes(tokenizer.backend_tokenizer.to_str().encode()), tokenizer.eos_token])


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def saved_versions(name: str, workspace: Workspace) -> list[Path]:
    """Folders of a saved tokenizer, oldest first; of one only where the version is named."""
    room = workspace.room("tokenizers")
    if re.search(r"@v\d+$", name):
        path = room / name
        return [path] if Path(name).name == name and (path / "report.json").is_file() else []
    found = [path for path in room.glob("[!.]*@v*") if path.name.rsplit("@v", 1)[0] == name]
    return sorted((path for path in found if (path / "report.json").is_file()), key=version_of)


def version_of(path: Path) -> int:
    return int(path.name.rsplit("@v", 1)[1])


if __name__ == "__main__":
    from data.tokenizer_cli import main  # it imports this module

    cli(main)
