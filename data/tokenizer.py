"""Tokenizers by name: trained on a corpus, saved before, in any folder, or on the Hub.

Uses `transformers`; of ours the other modules of `data`. A trained tokenizer is a folder `tokenizers/<name>@vN` that
AutoTokenizer opens, with `report.json` beside it. The same corpus and settings give the version that is there; others
make the next one, whose parent is the last.
"""

import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data.console import cli, nearest
from data.snapshots import Corpus
from data.tokenizer_kinds import KINDS, RESERVED, train_tokenizer
from data.tokenizer_measures import measure
from data.tokenizer_options import PLAIN, Options, find_special
from data.workspace import (
    SCHEMA,
    Workspace,
    check_name,
    new_folder,
    one_maker,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_json,
)

ALGORITHM = 1  # raised when training changes, so that a tokenizer of the old way is not taken for one of the new
TRAIN_CHARACTERS = 10_000  # for each entry to be learnt; with 1,000, tales and Shakespeare are compressed as well


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


def open_tokenizer(
    name: str, corpus: Corpus, vocab_size: int, workspace: Workspace, options: Options = PLAIN
) -> Tokenizer:
    """A tokenizer by name; one of the lab's own kinds is trained on the corpus unless that has been done.

    Args:
        name: `char`, `bpe` or `unigram`; a saved tokenizer (`NAME` for its newest version, or `NAME@vN`); a folder;
            a Hub id.
        vocab_size: of `bpe` and `unigram`; others have the size they have.
        options: of one that is trained; others are as they are.
    """
    if name not in KINDS:
        return load_tokenizer(name, workspace)
    return train_version(
        trained_name(corpus.name, name, vocab_size, options), name, corpus, vocab_size, workspace, options
    )


def trained_name(corpus: str, kind: str, vocab_size: int, options: Options = PLAIN) -> str:
    """What a tokenizer is called that a training makes for itself."""
    size = "" if KINDS[kind].smallest is None else f"-{vocab_size}"
    return f"{corpus}-{kind}{size}{options.suffix(kind)}"


@one_maker(lambda name, **_: name)
def train_version(
    name: str, kind: str, corpus: Corpus, vocab_size: int, workspace: Workspace, options: Options = PLAIN
) -> Tokenizer:
    """The version of `name` with this corpus and these settings, trained now if there is none."""
    if name in KINDS:
        raise ValueError(f"{name!r} is a kind of tokenizer: choose another name for this one")
    check_name(name, "tokenizer")
    settings = {"kind": kind, "algorithm": ALGORITHM}
    if KINDS[kind].smallest is not None:
        settings["vocab_size"] = vocab_size
    settings |= options.settings(kind)
    versions = saved_versions(name, workspace)
    for path in versions:
        report = read_json(path / "report.json")
        if report["settings"] == settings and report["corpus"]["sha256"] == corpus.sha256:
            return open_folder(path, path.name)
    number = 1 + max((version_of(path) for path in versions), default=0)
    started = time.perf_counter()
    limit = TRAIN_CHARACTERS * vocab_size if "vocab_size" in settings else None
    special = find_special(corpus.texts("train"), options, RESERVED)  # in all of it: what is rare counts, too
    tokenizer = train_tokenizer(kind, corpus.texts("train", limit), vocab_size, options, list(special))
    path = workspace.room("tokenizers") / f"{name}@v{number}"
    with new_folder(path) as folder:
        tokenizer.save_pretrained(folder)
        made = Tokenizer(tokenizer, path.name, folder, fingerprint(tokenizer, folder))
        report = {
            "schema": SCHEMA,
            "name": path.name,
            "sha256": made.sha256,
            "corpus": {"name": corpus.name, "sha256": corpus.sha256},
            "settings": settings,
            "parent": versions[-1].name if versions else None,
            "vocab_size": len(tokenizer),
            "special_found": special,
            "loses_information": options.loses,
            **measure(made, corpus),
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


def load_tokenizer(name: str, workspace: Workspace) -> Tokenizer:
    """A saved tokenizer, one in a folder, or one of the Hub."""
    versions = saved_versions(name, workspace)
    if versions:
        return open_folder(versions[-1], versions[-1].name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return open_folder(folder, folder.resolve().name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        known = [*KINDS, *(path.name for path in (workspace.root / "tokenizers").glob("[!.]*@v*"))]
        raise ValueError(
            f"no tokenizer {name!r} among kinds, saved ones and folders ({nearest(name, known)}), nor can it be had "
            f"from the Hub: {first_line(error)}"
        ) from error
    return checked(tokenizer, name, None)


def open_folder(folder: Path, name: str) -> Tokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
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
    room = workspace.root / "tokenizers"  # looking makes no folder
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
