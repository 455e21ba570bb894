"""Where examples come from: built-in sets, files of JSON lines, datasets on the Hub. Rows with their places.

Uses `datasets` late; of ours `data`. A source says what it is, by hash, before it is read, so that examples that were
frozen earlier are found again without reading, and without a network.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data.console import nearest
from data.hub_corpora import ID, PREFIX, Choice, request_for, snapshot_name
from data.snapshots import TextHash
from data.sources import decode
from data.workspace import sha256_file

ALIASES = {"alpaca": "tatsu-lab/alpaca"}  # sets that everyone calls by a shorter name
SUFFIXES = (".jsonl", ".json")
NOT_STATED = "not stated"  # the licence of examples that somebody brought
BUILT_IN_COUNT = 2_000  # examples of a built-in set where nothing else is asked for: an epoch is minutes on a CPU
PROBE = 200  # examples whose hash stands for what a program writes: enough to touch all of it, told in an instant


def stories(count: int) -> Iterator[dict]:
    """Requests for children's stories, and the stories."""
    from finetune.stories import examples

    return examples(count, seed=0)


BUILT_IN: dict[str, Callable[[int], Iterator[dict]]] = {"stories": stories}


@dataclass(frozen=True)
class Source:
    """Rows to be read, and what is known of them before."""

    name: str
    """What examples made from it are called."""
    files: list[dict]
    """Name, bytes and hash of all that is read; of a dataset on the Hub its id, and a hash of that."""
    rows: Callable[[], Iterator[tuple[str, object]]]
    """-> ("chat.jsonl:12", the row), one after another"""
    licence: str = NOT_STATED
    hub: dict = field(default_factory=dict)
    """Of a dataset on the Hub; `revision` and `licence` are filled in when it is opened."""


def find_source(name: str, choice: Choice) -> Source:
    """What a name means: a built-in set, a file or folder, a dataset on the Hub. Raises ValueError for nothing.

    Args:
        choice: configuration, split, revision and cap, which only a dataset on the Hub has, but for the cap.
    """
    name = name.strip()
    if name in BUILT_IN:
        refuse_choice(name, choice)
        return built_in(name, choice.documents or BUILT_IN_COUNT)
    dataset = ALIASES.get(name, name.removeprefix(PREFIX))
    path = Path(name).expanduser()
    if name not in ALIASES and not name.startswith(PREFIX) and path.exists():
        refuse_choice(name, choice)
        return in_files(path)
    if ID.fullmatch(dataset):
        return on_hub(dataset, choice)
    known = nearest(name, [*BUILT_IN, *ALIASES])
    raise ValueError(
        f"{name!r} is neither a built-in set of examples nor a file or folder, nor the id of a dataset such as "
        f"tatsu-lab/alpaca; {known}"
    )


def refuse_choice(name: str, choice: Choice) -> None:
    if given := [what for what in choice.given() if what != "documents"]:
        raise ValueError(f"{name!r} is not a dataset on the Hub, so it has no {', '.join(given)} to choose")


def built_in(name: str, count: int) -> Source:
    write, probe = BUILT_IN[name], TextHash()
    for example in write(PROBE):
        probe.update(json.dumps(example, ensure_ascii=False))
    probe.update(str(count))

    def rows() -> Iterator[tuple[str, object]]:
        return ((f"{name}:{i}", example) for i, example in enumerate(write(count), start=1))

    facts = {"name": name, "bytes": 0, "sha256": probe.hexdigest()}
    return Source(name, [facts], rows, "Apache-2.0")


def in_files(path: Path) -> Source:
    """A file, or all of a folder's, in the order of their names; each is read whole before the next."""
    files = list_files(path)
    facts = [{"name": name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for name, file in files]

    def rows() -> Iterator[tuple[str, object]]:
        for name, file in files:
            for number, row in read_file(name, file):
                yield f"{name}:{number}", row

    resolved = path.resolve()
    stem = resolved.name if resolved.is_dir() else resolved.stem
    named = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:40] or "examples"
    return Source(f"my-{named}" if named in (*BUILT_IN, *ALIASES) else named, facts, rows)


def list_files(path: Path) -> list[tuple[str, Path]]:
    """(name, path) of every file of examples; in a folder, files of other kinds are passed over."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"{path} is no file of examples: it should hold a JSON object a line and end in {' or '.join(SUFFIXES)}"
            )
        return [(path.name, path)]
    seen: Counter[str] = Counter()
    found = []
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        if file.suffix.lower() in SUFFIXES:
            found.append((f"{path.resolve().name}/{inside.as_posix()}", file))
        else:
            seen[file.suffix or "files without suffix"] += 1
    if not found:
        others = ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(3)) or "nothing"
        raise ValueError(f"the folder {path} holds {others}, and no {' or '.join(SUFFIXES)} file of examples")
    return found


def read_file(name: str, path: Path) -> Iterator[tuple[int, object]]:
    """(number of the line, what it holds); of a file that is one JSON list, (number in the list, entry)."""
    text = decode(path)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
        return
    # JSON strings may hold any other line separator of Unicode, so only "\n" ends a line
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {number}: not JSON: {error.msg} at column {error.colno}") from error


def on_hub(dataset: str, choice: Choice) -> Source:
    """A dataset on the Hub: streamed, so that a cap is all that is fetched."""
    request = request_for(PREFIX + dataset, choice)
    asked = {"dataset": dataset, "config": choice.config, "split": request.split}
    identity = TextHash()
    identity.update(json.dumps(asked, sort_keys=True))
    hub = {**asked, "documents": choice.documents, "asked_revision": choice.revision, "revision": None}

    def rows() -> Iterator[tuple[str, object]]:
        from finetune.hub_rows import stream  # datasets takes a while

        return stream(request, hub)

    name = snapshot_name(PREFIX + dataset, choice.config)
    facts = {"name": dataset, "url": f"hf://datasets/{dataset}", "bytes": 0, "sha256": identity.hexdigest()}
    return Source(name, [facts], rows, hub=hub)


def first(rows: Iterator[tuple[str, object]], count: int | None) -> Iterator[tuple[str, object]]:
    """At most so many of them."""
    return rows if count is None else islice(rows, count)
