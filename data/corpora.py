"""Corpora by name: the built-in ones, those on the Hub, those made before, and files or folders of one's own.

Uses the other modules of `data`. Whatever a corpus is made from, it ends as a snapshot in `corpora/`, found again by
the hashes of its sources and its split. Text that changed makes another one, `<name>-<6 hex>`, beside the old, which
earlier runs refer to.
"""

import dataclasses
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from data.builtin import BUILT_IN, Ingredients
from data.console import cli, nearest, one_line
from data.fetch import fetch
from data.hub_corpora import HUB, Choice, is_on_hub, request_for, snapshot_name
from data.preview import summary
from data.snapshots import (
    SPLITS,
    VALIDATION_FRACTION,
    Corpus,
    check_fraction,
    open_snapshot,
    split_documents,
    write_snapshot,
)
from data.sources import list_files, read_sources
from data.workspace import Workspace, check_name, one_maker, sha256_file, sha256_json

__all__ = ["BUILT_IN", "HUB", "Corpus", "open_corpus"]

NOT_STATED = "not stated"  # the licence of text that somebody brought


def on_stderr(what: str) -> None:
    print(f"corpus     {what}", file=sys.stderr)


def open_corpus(
    name: str | Path,
    workspace: Workspace,
    validation_fraction: float | None = None,
    seed: int = 0,
    field: str | None = None,
    choice: Choice | None = None,
) -> Corpus:
    """A corpus by name or by path; its snapshot is made where there is none.

    Args:
        name: a built-in corpus, one on the Hub (`c4`, `hf:OWNER/NAME`), a snapshot in the workspace, or a path.
        validation_fraction: share held out. None: a tenth (tales: 2,000 stories; of the Hub, the dataset's own
            validation split), or what an existing snapshot has.
        seed: of the choice of documents held out.
        field: the field of JSON lines and Parquet, or the column on the Hub, that holds the text.
        choice: what else a corpus on the Hub can be asked for: configuration, split, revision, cap.
    """
    name = str(name)
    if is_on_hub(name):
        choice = choice or Choice()
        choice = dataclasses.replace(choice, field=field or choice.field)
        return open_from_hub(name, workspace, validation_fraction, seed, choice)
    if choice is not None and (given := choice.given()):
        raise ValueError(f"{name!r} is not fetched from the Hub, so it has no {', '.join(given)} to choose")
    if name in BUILT_IN:
        entry = BUILT_IN[name]
        return find_or_make(name, entry.prepare(validation_fraction, seed), entry.licence, workspace)
    room, path = workspace.room("corpora"), Path(name).expanduser()
    if Path(name).name == name and (room / name / "manifest.json").is_file():
        return open_as_made(open_snapshot(room / name), validation_fraction, path)
    if not path.exists():
        raise ValueError(
            f"no corpus and no file or folder {name!r}; {nearest(name, [*BUILT_IN, *HUB, *snapshot_names(workspace)])}"
        )
    return add_corpus(default_name(path), [path], workspace, validation_fraction, seed, field)


def open_from_hub(
    name: str, workspace: Workspace, fraction: float | None, seed: int, choice: Choice, say=on_stderr
) -> Corpus:
    """A corpus on the Hub: the snapshot of its name where nothing else is asked for, else the one asked for."""
    made = workspace.root / "corpora" / name / "manifest.json"
    if name in HUB and not choice.given() and fraction is None and seed == 0 and made.is_file():
        return open_snapshot(made.parent)
    request = request_for(name, choice, fraction, seed)
    started = time.perf_counter()
    before = snapshot_names(workspace)
    corpus = fetch(snapshot_name(name, request.config), request, workspace, say)
    if corpus.name not in before:
        say(f"{summary(corpus)}, fetched in {time.perf_counter() - started:.1f} s")
    return corpus


def is_named(name: str, workspace: Workspace) -> bool:
    """Whether a corpus is meant by its name, not by a path; of one on the Hub, whether or not there is such a one."""
    return name in BUILT_IN or is_on_hub(name) or name in snapshot_names(workspace)


def open_as_made(corpus: Corpus, fraction: float | None, path: Path) -> Corpus:
    """A snapshot asked for by its name; what is asked of it must be what it is."""
    has = corpus.manifest["split"]["fraction"]
    if fraction is not None and fraction != has:
        raise ValueError(
            f"corpus {corpus.name} was split with validation_fraction {has:g}, not {fraction:g}: leave it out, "
            "or name the original file or folder to split it again"
        )
    if path.exists():  # a folder of the same name lies here: whoever typed the name may have meant that
        now = sorted(sha256_file(file) for _, file in list_files(path, Counter()))
        if now != sorted(source["sha256"] for source in corpus.manifest["sources"]):
            on_stderr(f"taking the snapshot {corpus.name}; ./{path} holds other text by now (write ./{path} for that)")
    return corpus


def snapshot_names(workspace: Workspace) -> list[str]:
    """Those in the workspace; looking writes nothing, not even an empty folder."""
    return sorted(path.parent.name for path in (workspace.root / "corpora").glob("[!.]*/manifest.json"))


def snapshot(name: str, workspace: Workspace) -> Corpus:
    """A snapshot that is there. Raises ValueError where there is none of this name."""
    names = snapshot_names(workspace)
    if name not in names:
        hint = nearest(name, names) if names else "there are none yet"
        raise ValueError(f"no snapshot {name!r} in the workspace; {hint}")
    return open_snapshot(workspace.root / "corpora" / name)


def default_name(path: Path) -> str:
    """A path's stem, made fit to be a folder's name."""
    path = path.resolve()
    stem = path.name if path.is_dir() else path.stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:40] or "corpus"
    return f"my-{name}" if name in BUILT_IN or name in HUB else name


def add_corpus(
    name: str,
    paths: Sequence[str | Path],
    workspace: Workspace,
    validation_fraction: float | None = None,
    seed: int = 0,
    field: str | None = None,
    licence: str = NOT_STATED,
    say: Callable[[str], object] = on_stderr,
) -> Corpus:
    """The snapshot of one's own files and folders, under `name` or, where that is other text, `<name>-<6 hex>`.

    Args:
        say: is told what was made, what was left out, and why the name is another.
    """
    if check_name(name, "corpus") in BUILT_IN:
        raise ValueError(f"{name!r} is a built-in corpus: choose another name")
    if is_on_hub(name):
        raise ValueError(f"{name!r} is a corpus on the Hub: choose another name")
    fraction = check_fraction(VALIDATION_FRACTION if validation_fraction is None else validation_fraction)
    if seed < 0:
        raise ValueError(f"the seed of a split is 0 or more, not {seed}")
    found = read_sources(paths, field)
    parts, split = split_documents(found.documents, fraction, seed)
    ingredients = Ingredients(found.sources, split, lambda: (parts, None), field)
    return find_or_make(name, ingredients, licence, workspace, found.left_out(), say)


@one_maker(lambda name, **_: name)
def find_or_make(
    name: str,
    ingredients: Ingredients,
    licence: str,
    workspace: Workspace,
    left_out: str = "",
    say: Callable[[str], object] = on_stderr,
    parents: Sequence[dict] = (),
) -> Corpus:
    """The snapshot made from these ingredients, made now if it is not there; an existing one is never overwritten."""
    key = sha256_json([[s["sha256"] for s in ingredients.sources], ingredients.split, ingredients.field])
    room = workspace.room("corpora")
    plain, versioned = room / check_name(name, "corpus"), room / f"{name}-{key[:6]}"
    existing = [open_snapshot(path) for path in (plain, versioned) if (path / "manifest.json").is_file()]
    for corpus in existing:
        if corpus.manifest["made_from"] == key:
            return corpus
    if existing:
        say(f"{name} is other text or another split, and is kept: making {versioned.name}")
    started = time.perf_counter()
    texts, log_probs = ingredients.make()
    path = versioned if existing else plain
    corpus = write_snapshot(
        path, texts, ingredients.split, ingredients.sources, key, licence, log_probs, ingredients.field, parents
    )
    note = f"; left out: {left_out}" if left_out else ""
    say(f"{summary(corpus)}, made in {time.perf_counter() - started:.1f} s{note}")
    return corpus


def list_corpora(workspace: Workspace) -> list[dict]:
    """Built-in corpora, those on the Hub and snapshots, one row each; of one not made yet, or unreadable, the counts
    are None. `hub` names the dataset of one in the table of the Hub, `published` its size there."""
    names = snapshot_names(workspace)
    tables = [*BUILT_IN, *HUB]
    rows = []
    for name in [*tables, *(name for name in names if name not in tables)]:
        row = {"name": name, "built_in": name in BUILT_IN, "made": name in names, "about": "", "licence": "unknown"}
        row |= {"documents": None, "bytes": None, "floor_bits_per_byte": None, "hub": None, "published": None}
        if row["made"]:
            row |= in_short(workspace.root / "corpora" / name)
        entry = BUILT_IN.get(name) or HUB.get(name)
        if entry:
            row |= {"about": entry.about, "licence": entry.licence}
        if name in HUB:
            row |= {"hub": entry.dataset, "published": {"documents": entry.documents, "bytes": entry.bytes}}
        rows.append(row)
    return rows


def in_short(path: Path) -> dict:
    """A snapshot's part of its row, from its manifest alone."""
    try:
        corpus = open_snapshot(path)
        splits = [corpus.manifest["splits"][name] for name in SPLITS]
        return {
            "about": summary(corpus).split(": ", 1)[1],
            "licence": corpus.manifest["licence"],
            "documents": sum(split["documents"] for split in splits),
            "bytes": sum(split["bytes"] for split in splits),
            "floor_bits_per_byte": corpus.floor["validation"]["bits_per_byte"] if corpus.floor else None,
        }
    except (ValueError, KeyError, TypeError) as error:  # one damaged folder does not hide the others
        return {"about": f"cannot be read: {one_line(error)}"}


if __name__ == "__main__":
    from data.corpora_cli import main  # it imports this module

    cli(main)
