"""Labelled texts for probes: the sets that come with the lab, and files of one's own.

May import `data.console`; of ours `interpret.probe_templates`, which writes the sets. A label belongs to a place in a
text, and the probe reads the model at the last token of that place.
"""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data.console import nearest
from interpret.probe_templates import TEMPLATES

EXAMPLES = 480  # of a set that is written here: an accuracy from a third of them is known to about ± 7 %
MAX_EXAMPLES = 3000  # of a file; more are drawn from by lot, because every layer's probe is fitted on all of them
MAX_BYTES = 50_000_000
FEWEST = 8  # texts with a label: some are held out, some choose the strength of the penalty, the rest are fitted


@dataclass(frozen=True)
class Example:
    """A text and what is true of one place in it.

    Attributes:
        start, end: the place, in characters; the probe reads the last token that touches it.
        type: what labels of the control task are given by, as if by the word alone; the place's last word by default.
    """

    text: str
    start: int
    end: int
    label: str
    type: str


@dataclass(frozen=True)
class ProbeSet:
    """A labelled set: what is asked about it, its examples, and what was left out, as a sentence or ""."""

    name: str
    question: str
    examples: tuple[Example, ...]
    note: str = ""

    @property
    def labels(self) -> list[str]:
        return sorted({example.label for example in self.examples})


def open_set(name: str, seed: int = 0) -> ProbeSet:
    """A set that comes with the lab, by its name, or a CSV or JSONL file. Raises ValueError for neither.

    Args:
        seed: of the texts that are written, or of the lot where a file has too many.
    """
    if name in TEMPLATES:
        return written(name, seed)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no labelled set and no file {name!r}; {nearest(name, TEMPLATES)}")
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ValueError(f"{path} must be a .csv or .jsonl file with the columns text and label")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES // 10**6} MB: a probe needs some hundred examples")
    try:
        return read_set(path.read_text(encoding="utf-8-sig"), path.name, seed)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def written(name: str, seed: int = 0, count: int = EXAMPLES) -> ProbeSet:
    """One of TEMPLATES, its texts drawn by `seed`; no text comes twice."""
    question, write = TEMPLATES[name]
    random, seen = Random(f"{name} {seed}"), {}
    while len(seen) < count:
        text, place, label, kind = write(random)
        start = text.rindex(place)
        seen.setdefault(text, Example(text, start, start + len(place), label, kind))
    return ProbeSet(name, question, tuple(seen.values()))


def read_set(content: str, name: str, seed: int = 0) -> ProbeSet:
    """Examples from the text of a CSV file (with a header) or of JSON lines.

    Columns: `text` and `label`; `start` and `end` where the label is of a place in the text and not of all of it;
    `type` where the control task should go by something else than that place's last word. Raises ValueError that names
    the line for whatever cannot be read, and for labels of which there are too few.
    """
    rows = _json_rows(content, name) if content.lstrip().startswith("{") else _csv_rows(content, name)
    examples = [_example(row, f"{name}, line {line}") for line, row in rows]
    note = ""
    if len(examples) > MAX_EXAMPLES:
        note = f"{name} has {len(examples):,} examples: {MAX_EXAMPLES:,} of them, drawn by lot, are used."
        examples = Random(seed).sample(examples, MAX_EXAMPLES)
    check_labels(examples, name)
    return ProbeSet(name, f"which label of {name} the text has", tuple(examples), note)


def check_labels(examples: list[Example], name: str) -> None:
    """Raises ValueError unless there are two labels or more, each in FEWEST texts or more."""
    texts = Counter(label for _, label in {(example.text, example.label) for example in examples})
    if len(texts) < 2:
        raise ValueError(f"{name} has {len(texts)} labels: a probe needs two or more to tell apart")
    label, count = min(texts.items(), key=lambda item: item[1])
    if count < FEWEST:
        raise ValueError(
            f"{name} has the label {label!r} in {count} texts only: a probe needs {FEWEST} of each or more"
        )


def _csv_rows(content: str, name: str):
    reader = csv.DictReader(io.StringIO(content.lstrip()), skipinitialspace=True)
    missing = {"text", "label"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"{name} lacks the column {min(missing)}: its first line should be text,label")
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if value not in (None, "")}


def _json_rows(content: str, name: str):
    for line, text in enumerate(content.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {line} is not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ValueError(f'{name}, line {line} should be an object such as {{"text": "…", "label": "…"}}')
        yield line, row


def _example(row: dict, where: str) -> Example:
    """One row; numbers may be written as numbers or as text."""
    for column in ("text", "label"):
        if row.get(column) in (None, ""):
            raise ValueError(f"{where} has no {column}")
    text = str(row["text"])
    try:
        start, end = int(row.get("start", 0)), int(row.get("end", len(text)))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: start and end are numbers of characters") from None
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: the place {start} to {end} is not in its text of {len(text)} characters")
    words = text[start:end].split() or [text[start:end]]
    return Example(text, start, end, str(row["label"]), str(row.get("type", words[-1])))
