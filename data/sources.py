"""Files and folders of text become documents, exactly as they were written.

Uses pyarrow and tqdm; of ours only `data.workspace` (hashes). `.txt` and `.md` are one document a file, `.jsonl` one a
line, `.parquet` one a row. Every mistake is a ValueError that names the file and the place in it.

A text is kept to the last byte, carriage returns and double spaces included, but for a byte order mark at its
beginning: that is a sign between programs, not something anybody wrote.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet
from tqdm import tqdm

from data.workspace import sha256_file

FIELD = "text"  # the column or field in which text is looked for first
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Found:
    """What was read, from which files, and what was left out."""

    documents: list[str] = field(default_factory=list)
    sources: list[dict] = field(default_factory=list)
    """Name (relative to what was given), bytes and SHA-256 of every file."""
    empty: int = 0
    """Documents of nothing but white space; they teach nothing and are dropped."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files in folders that have no reader, by suffix."""

    def left_out(self) -> str:
        """One phrase for what was not taken, or nothing."""
        parts = [f"{count:,} {kind}" for kind, count in self.skipped.most_common()]
        if self.empty:
            parts.append(f"{self.empty:,} empty documents")
        return ", ".join(parts)


def read_sources(paths: Sequence[str | Path], field: str | None = None) -> Found:
    """Every document under `paths`, in an order that depends on their names alone.

    Args:
        field: the field or column that holds the text; by default `text`, or the only one that holds strings.
    """
    found = Found()
    files = [entry for path in paths for entry in list_files(Path(path).expanduser(), found.skipped)]
    total = sum(path.stat().st_size for _, path in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="reading", leave=False, disable=None) as progress:
        for name, path in files:
            found.sources.append({"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
            for text in READERS[path.suffix.lower()](path, field):
                if text is None or not text.strip():
                    found.empty += 1
                else:
                    found.documents.append(text)
            progress.update(path.stat().st_size)
    if not found.documents:
        named = ", ".join(str(path) for path in paths)
        raise ValueError(
            f"{named}: no text in it ({found.left_out() or 'no files'}); it takes {', '.join(READERS)} files"
        )
    return found


def list_files(path: Path, skipped: Counter[str]) -> Iterator[tuple[str, Path]]:
    """(name, path) of a file, or of every readable file under a folder; hidden ones and unknown kinds are counted."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in READERS:
            raise ValueError(
                f"{path}: no reader for {path.suffix or 'a name without suffix'}; known: {', '.join(READERS)}"
            )
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if not file.is_file():
            continue
        if any(part.startswith(".") for part in inside.parts):
            skipped["hidden files"] += 1
        elif file.suffix.lower() not in READERS:
            skipped[f"{file.suffix or 'files without suffix'}"] += 1
        else:
            yield f"{path.resolve().name}/{inside.as_posix()}", file


def read_text(path: Path, _field: str | None = None) -> Iterator[str]:
    yield decode(path)


def decode(path: Path) -> str:
    """A file's text, without its byte order mark. A wrong byte is the user's to know about, not ours to replace."""
    data = path.read_bytes()
    start = len(UTF8_MARK) if data.startswith(UTF8_MARK) else 0
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        looks = "; it looks like UTF-16" if data.startswith(UTF16_MARKS) else ""
        offset = start + error.start
        raise ValueError(
            f"{path}: not UTF-8: byte 0x{data[offset]:02x} at offset {offset:,}{looks}; convert it first, "
            "for example with `iconv -t UTF-8 -f ENCODING`"
        ) from error


def read_jsonl(path: Path, field: str | None) -> Iterator[str | None]:
    # JSON strings may hold any other line separator of Unicode, so only "\n" ends a line
    for number, line in enumerate(decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a JSON object is wanted, with a field {FIELD!r}")
        strings = [key for key, value in row.items() if isinstance(value, str)]
        key = choose_field(field, list(row), strings, f"{path}, line {number}")
        if not isinstance(row[key], str | None):
            raise ValueError(f"{path}, line {number}: the field {key!r} holds a {type(row[key]).__name__}, not text")
        yield sound(row[key], f"{path}, line {number}")


def sound(text: str | None, where: str) -> str | None:
    """JSON can spell half of a surrogate pair, which is no character and which no UTF-8 file can hold."""
    try:
        return text if text is None or text.encode() is not None else None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: half a surrogate pair at character {error.start}, which is not Unicode text"
        ) from error


def read_parquet(path: Path, field: str | None) -> Iterator[str | None]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file: {error}") from error
    schema = file.schema_arrow
    strings = [c.name for c in schema if pyarrow.types.is_string(c.type) or pyarrow.types.is_large_string(c.type)]
    key = choose_field(field, schema.names, strings, str(path))
    if key not in strings:
        raise ValueError(f"{path}: the column {key!r} holds {schema.field(key).type}, not text")
    for batch in file.iter_batches(columns=[key]):
        yield from batch.column(0).to_pylist()


def choose_field(wanted: str | None, names: list[str], strings: list[str], where: str) -> str:
    """The field asked for, else `text`, else the only one with strings."""
    if wanted is None and FIELD not in names and len(strings) == 1:
        return strings[0]
    if (wanted or FIELD) in names:
        return wanted or FIELD
    raise ValueError(f"{where}: no field {wanted or FIELD!r} among {', '.join(names) or 'none'}; name one with --field")


READERS: dict[str, Callable[[Path, str | None], Iterator[str | None]]] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
