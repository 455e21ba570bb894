"""Corpora by name: the built-in ones, those made before, and files or folders of one's own.

Uses the other modules of `data`. Whatever a corpus is made from, it ends as a snapshot in `corpora/`, found again by
the hashes of its sources and its split. Text that changed makes another one, `<name>-<6 hex>`, beside the old, which
earlier runs refer to.
"""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from data.builtin import BUILT_IN, Ingredients
from data.console import Parser, cli, nearest, one_line
from data.preview import describe, print_description, summary
from data.snapshots import (
    SPLITS,
    VALIDATION_FRACTION,
    Corpus,
    check_fraction,
    delete_snapshot,
    open_snapshot,
    split_documents,
    write_snapshot,
)
from data.sources import list_files, read_sources
from data.workspace import Workspace, check_name, one_maker, sha256_file, sha256_json

__all__ = ["BUILT_IN", "Corpus", "open_corpus"]

NOT_STATED = "not stated"  # the licence of text that somebody brought


def on_stderr(what: str) -> None:
    print(f"corpus     {what}", file=sys.stderr)


def open_corpus(
    name: str | Path,
    workspace: Workspace,
    validation_fraction: float | None = None,
    seed: int = 0,
    field: str | None = None,
) -> Corpus:
    """A corpus by name or by path; its snapshot is made where there is none.

    Args:
        name: a built-in corpus, a snapshot in the workspace, or a file or folder.
        validation_fraction: share held out. None: a tenth (tales: 2,000 stories), or what an existing snapshot has.
        seed: of the choice of documents held out.
        field: the field of JSON lines and Parquet that holds the text.
    """
    name = str(name)
    if name in BUILT_IN:
        entry = BUILT_IN[name]
        return find_or_make(name, entry.prepare(validation_fraction, seed), entry.licence, workspace)
    room, path = workspace.room("corpora"), Path(name).expanduser()
    if Path(name).name == name and (room / name / "manifest.json").is_file():
        return open_as_made(open_snapshot(room / name), validation_fraction, path)
    if not path.exists():
        raise ValueError(
            f"no corpus and no file or folder {name!r}; {nearest(name, [*BUILT_IN, *snapshot_names(workspace)])}"
        )
    return add_corpus(default_name(path), [path], workspace, validation_fraction, seed, field)


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
    return f"my-{name}" if name in BUILT_IN else name


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
        path, texts, ingredients.split, ingredients.sources, key, licence, log_probs, ingredients.field
    )
    note = f"; left out: {left_out}" if left_out else ""
    say(f"{summary(corpus)}, made in {time.perf_counter() - started:.1f} s{note}")
    return corpus


def list_corpora(workspace: Workspace) -> list[dict]:
    """Built-in corpora and snapshots, one row each; of one not made yet, or unreadable, the counts are None."""
    names = snapshot_names(workspace)
    rows = []
    for name in [*BUILT_IN, *(name for name in names if name not in BUILT_IN)]:
        row = {"name": name, "built_in": name in BUILT_IN, "made": name in names, "about": "", "licence": "unknown"}
        row |= {"documents": None, "bytes": None, "floor_bits_per_byte": None}
        if row["made"]:
            row |= in_short(workspace.root / "corpora" / name)
        if row["built_in"]:
            row |= {"about": BUILT_IN[name].about, "licence": BUILT_IN[name].licence}
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


def parser() -> Parser:
    top = Parser(
        prog="python -m data.corpora",
        description="Corpora and their snapshots.",
        epilog="example:\n  python -m data.corpora add letters ~/letters\n  python -m data.corpora show letters",
    )
    shared = Parser(add_help=False)
    shared.add_argument("--workspace", help="where snapshots are kept (default: $LLM_LAB_WORKSPACE, else ./workspace)")
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    actions = top.add_subparsers(dest="action", required=True, metavar="list | show | fetch | add | delete")
    actions.add_parser("list", parents=[shared], help="built-in corpora and snapshots, one line each")
    show = actions.add_parser("show", parents=[shared], help="counts, lengths, entropy floor, sources, first documents")
    show.add_argument("name", help="a built-in corpus or a snapshot")
    get = actions.add_parser("fetch", parents=[shared], help="make the snapshot of a built-in corpus now")
    get.add_argument("name", help=f"one of {', '.join(BUILT_IN)}")
    add = actions.add_parser(
        "add",
        parents=[shared],
        help="make a snapshot of your own files and folders (.txt, .md, .jsonl, .parquet)",
        epilog="example:\n  python -m data.corpora add letters ~/Documents/letters notes.jsonl --field body",
    )
    add.add_argument("name", help="what to call it")
    add.add_argument("paths", nargs="+", metavar="PATH", help="files and folders")
    add.add_argument("--validation-fraction", type=float, help=f"share held out (default: {VALIDATION_FRACTION})")
    add.add_argument("--seed", type=int, default=0, help="of the choice of documents held out (default: 0)")
    add.add_argument(
        "--field", help="field of .jsonl and .parquet that holds the text (default: text, or the only one)"
    )
    add.add_argument("--licence", default=NOT_STATED, help="recorded in the manifest")
    delete = actions.add_parser("delete", parents=[shared], help="remove a snapshot that no run was trained on")
    delete.add_argument("name", help="a snapshot")
    return top


def main() -> None:
    args = parser().parse_args()
    workspace = Workspace(args.workspace)
    if args.action == "list":
        rows = list_corpora(workspace)
        if args.json:
            print(json.dumps(rows, indent=2, ensure_ascii=False))
        for row in [] if args.json else rows:
            state = ("snapshot" if row["made"] else "built in, not made yet") if row["built_in"] else "snapshot"
            print(f"{row['name']:<24}{row['about']} [{row['licence']}; {state}]")
        return
    if args.action == "delete":
        delete_snapshot(snapshot(args.name, workspace), workspace)
        print(json.dumps({"deleted": args.name}) if args.json else f"{args.name} is deleted")
        return
    if args.action == "fetch" and args.name not in BUILT_IN:
        raise ValueError(f"{args.name!r} is not a built-in corpus; {nearest(args.name, BUILT_IN)}")
    if args.action == "add":
        corpus = add_corpus(
            args.name, args.paths, workspace, args.validation_fraction, args.seed, args.field, args.licence
        )
    else:
        corpus = open_corpus(args.name, workspace)
    if args.json:
        print(json.dumps(describe(corpus), indent=2, ensure_ascii=False))
    elif args.action == "show":
        print_description(corpus)
    else:
        print(f"{summary(corpus)}, in {corpus.path}")


if __name__ == "__main__":
    cli(main)
