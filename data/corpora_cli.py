"""`python -m data.corpora`: list, show, fetch, mix, add and delete corpora.

Uses the other modules of `data`. `data.corpora` is the entry; this is what it is asked and how it answers.
"""

import argparse
import json

from data.builtin import BUILT_IN
from data.console import Parser, nearest
from data.corpora import NOT_STATED, add_corpus, list_corpora, open_corpus, snapshot
from data.hub_corpora import HUB, ID, PREFIX, Choice, is_on_hub, parse_bytes
from data.mixtures import mix, parse_weights
from data.preview import describe, print_description, summary
from data.snapshots import VALIDATION_FRACTION, Corpus, delete_snapshot
from data.statistics import lines, statistics
from data.workspace import Workspace


def parser() -> Parser:
    top = Parser(
        prog="python -m data.corpora",
        description="Corpora and their snapshots.",
        epilog="example:\n  python -m data.corpora add letters ~/letters\n  python -m data.corpora show letters",
    )
    shared = Parser(add_help=False)
    shared.add_argument("--workspace", help="where snapshots are kept (default: $LLM_LAB_WORKSPACE, else ./workspace)")
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    actions = top.add_subparsers(dest="action", required=True, metavar="list | show | fetch | mix | add | delete")
    actions.add_parser("list", parents=[shared], help="built-in corpora, those on the Hub, and snapshots")
    show = actions.add_parser("show", parents=[shared], help="counts, lengths, entropy floor, sources, first documents")
    show.add_argument("name", help="a built-in corpus or a snapshot")
    show.add_argument("--statistics", action="store_true", help="duplicates, overlap of the splits, frequent words")
    add_fetch(actions, shared)
    add_mix(actions, shared)
    add_add(actions, shared)
    delete = actions.add_parser("delete", parents=[shared], help="remove a snapshot that no run was trained on")
    delete.add_argument("name", help="a snapshot")
    return top


def add_fetch(actions: argparse._SubParsersAction, shared: Parser) -> None:
    get = actions.add_parser(
        "fetch",
        parents=[shared],
        help="make the snapshot of a corpus now; of the Hub, go on with a fetch that was interrupted",
        epilog="examples:\n  python -m data.corpora fetch tinystories --bytes 20MB\n"
        "  python -m data.corpora fetch wikimedia/wikipedia --config 20231101.cy --documents 5000",
    )
    get.add_argument(
        "name", metavar="NAME | OWNER/NAME", help=f"one of {', '.join([*BUILT_IN, *HUB])}, or a dataset's id"
    )
    get.add_argument("--config", help="configuration of the dataset")
    get.add_argument("--split", help="split to train on (default: train)")
    get.add_argument("--field", help="column that holds the text (default: text, or the only one)")
    get.add_argument("--revision", help="commit, branch or tag (default: the newest)")
    get.add_argument("--documents", type=int, help="take so many documents at most")
    get.add_argument("--bytes", type=size, help="take so much text at most, such as 20MB (default: by corpus)")
    get.add_argument(
        "--validation-fraction", type=float, help="hold out this share (default: its own split, else a tenth)"
    )
    get.add_argument("--seed", type=int, default=0, help="of the choice of documents held out (default: 0)")


def add_mix(actions: argparse._SubParsersAction, shared: Parser) -> None:
    blend = actions.add_parser(
        "mix",
        parents=[shared],
        help="make a corpus of others, each with a weight",
        epilog="example:\n  python -m data.corpora mix bedtime tales=0.7 shakespeare=0.3 --bytes 2MB",
    )
    blend.add_argument("name", help="what to call it")
    blend.add_argument("weights", nargs="+", metavar="CORPUS=WEIGHT", help="corpora and their shares of the bytes")
    blend.add_argument("--documents", type=int, help="about so many documents to train on")
    blend.add_argument("--bytes", type=size, help="so much text to train on (default: until one of them is used up)")
    blend.add_argument("--seed", type=int, default=0, help="of the choice of documents and their order (default: 0)")


def add_add(actions: argparse._SubParsersAction, shared: Parser) -> None:
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


def size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> None:
    args = parser().parse_args()
    workspace = Workspace(args.workspace)
    if args.action == "list":
        print_list(list_corpora(workspace), args.json)
    elif args.action == "delete":
        delete_snapshot(snapshot(args.name, workspace), workspace)
        print(json.dumps({"deleted": args.name}) if args.json else f"{args.name} is deleted")
    else:
        corpus = ACTIONS[args.action](args, workspace)
        found = statistics(corpus, workspace) if args.action == "show" and args.statistics else None
        print_corpus(corpus, found, args)


def fetch(args: argparse.Namespace, workspace: Workspace) -> Corpus:
    name = args.name
    choice = Choice(
        config=args.config, split=args.split, revision=args.revision, documents=args.documents, bytes=args.bytes
    )
    if ID.fullmatch(name):
        name = f"{PREFIX}{name}"
    if name not in BUILT_IN and not is_on_hub(name):
        raise ValueError(
            f"{name!r} is neither a built-in corpus nor one on the Hub; {nearest(name, [*BUILT_IN, *HUB])} "
            "(any other dataset: OWNER/NAME)"
        )
    return open_corpus(name, workspace, args.validation_fraction, args.seed, args.field, choice)


ACTIONS = {
    "show": lambda args, workspace: open_corpus(args.name, workspace),
    "fetch": fetch,
    "mix": lambda args, workspace: mix(
        args.name, parse_weights(args.weights), workspace, args.documents, args.bytes, args.seed
    ),
    "add": lambda args, workspace: add_corpus(
        args.name, args.paths, workspace, args.validation_fraction, args.seed, args.field, args.licence
    ),
}


def print_list(rows: list[dict], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        state = "snapshot" if row["made"] else "built in, not made yet"
        if row["hub"] and not row["made"]:
            documents, megabytes = row["published"]["documents"], row["published"]["bytes"] / 1e6
            state = f"not fetched yet: {row['hub']}, {documents:,} documents, {megabytes:,.0f} MB"
        print(f"{row['name']:<24}{row['about']} [{row['licence']}; {state}]")


def print_corpus(corpus: Corpus, found: dict | None, args: argparse.Namespace) -> None:
    """What was made in a line, or all that is known of it, `found` being its statistics."""
    if args.json:
        shown = describe(corpus) | ({"statistics": found} if found else {})
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif args.action != "show":
        print(f"{summary(corpus)}, in {corpus.path}")
    else:
        print_description(corpus)
        if found:
            print("\n" + "\n".join(lines(found)))
