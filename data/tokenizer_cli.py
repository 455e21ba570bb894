"""The commands of `python -m data.tokenizer`: train, report, compare. Uses the other modules of `data`."""

import argparse
import json
from pathlib import Path

from data.console import Parser
from data.corpora import open_corpus
from data.sources import decode
from data.tokenizer import load_tokenizer, train_version
from data.tokenizer_kinds import KINDS
from data.tokenizer_report import SAMPLE, Vocabulary, compare_on, describe
from data.workspace import Workspace

EXAMPLE = 'Once upon a time, a naïve fox said:  "I don\'t know 3,141 words — 你好, мир! 🦊"\n'


def parser() -> Parser:
    top = Parser(
        prog="python -m data.tokenizer",
        description="Tokenizers trained on a corpus.",
        epilog="example:\n  python -m data.tokenizer train letters --corpus ~/letters --kind bpe --vocab-size 4096\n"
        "  python -m data.tokenizer compare letters gpt2 --corpus letters",
    )
    shared = Parser(add_help=False)
    shared.add_argument("--workspace", help="where tokenizers are kept (default: $LLM_LAB_WORKSPACE, else ./workspace)")
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    actions = top.add_subparsers(dest="action", required=True, metavar="train | report | compare")
    train = actions.add_parser("train", parents=[shared], help="train one, or find the version that is there")
    train.add_argument("name", help="what to call it; it becomes NAME@v1, then NAME@v2 …")
    train.add_argument("--corpus", required=True, help="a built-in corpus, a snapshot, a file or a folder")
    kinds = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
    train.add_argument("--kind", choices=KINDS, default="bpe", help=f"{kinds} (default: bpe)")
    train.add_argument("--vocab-size", type=int, default=1024, help="entries; char takes what it needs (default: 1024)")
    report = actions.add_parser("report", parents=[shared], help="what a saved tokenizer is and how well it compresses")
    report.add_argument("name", help="NAME for the newest version, or NAME@vN")
    compare = actions.add_parser("compare", parents=[shared], help="two tokenizers on the same text")
    compare.add_argument("names", nargs=2, metavar="NAME", help="a saved tokenizer, a folder or a Hub id")
    text = compare.add_mutually_exclusive_group()
    text.add_argument("--text", help="the text itself (default: a sentence in several scripts)")
    text.add_argument("--file", type=Path, help="a text file")
    text.add_argument("--corpus", help="a corpus, whose validation text is taken")
    return top


def print_report(report: dict) -> None:
    print(f"{report['name']}: {report['vocab_size']:,} entries, {report['settings']['kind']}")
    if "corpus" in report:
        corpus = report["corpus"]
        print(f"trained on       {corpus['name']} (SHA-256 {corpus['sha256'][:12]}), {report['created_at']}")
        print(f"parent           {report['parent'] or 'none'}")
        print(f"bytes a token    {report['bytes_per_token']:.3f} on {report['validation_bytes']:,} bytes held out")
        print(f"tokens a word    {report['tokens_per_word']:.3f}")
        measured = report["unused_measured_on_characters"]
        print(f"unused entries   {report['unused_entries']:,} on {measured:,} characters of training text")
    print(f"sha256           {report['sha256']}")


def chosen_texts(args: argparse.Namespace, workspace: Workspace) -> list[str]:
    if args.corpus:
        return list(open_corpus(args.corpus, workspace).texts("validation", SAMPLE))
    if args.file and not args.file.is_file():
        raise ValueError(f"{args.file}: no such file")
    text = decode(args.file) if args.file else EXAMPLE if args.text is None else args.text
    if not text:
        raise ValueError("there is nothing to compare on: the text is empty")
    return [text]


def print_comparison(rows: list[dict]) -> None:
    width = max(len(row["name"]) for row in rows)
    print(f"{rows[0]['bytes']:,} bytes of text\n")
    print(
        f"{'tokenizer':<{width}}{'entries':>10}{'tokens':>12}{'bytes/token':>13}{'tokens/word':>13}"
        f"{'unknown':>10}{'as bytes':>10}"
    )
    for row in rows:
        figures = f"{row['tokens']:>12,}{row['bytes_per_token']:>13.3f}{row['tokens_per_word']:>13.3f}"
        shares = f"{row['unknown_share']:>10.2%}{row['byte_share']:>10.2%}"
        print(f"{row['name']:<{width}}{row['vocab_size']:>10,}{figures}{shares}")
    for row in rows:
        # a part of a character shows as \xNN: its bytes were cut between tokens
        print(f"\n{row['name']}:\n{'|'.join(row['example'])}".replace("\r", "␍").rstrip("\n"))


def main() -> None:
    args = parser().parse_args()
    workspace = Workspace(args.workspace)
    if args.action == "compare":
        texts = chosen_texts(args, workspace)
        rows = [compare_on(Vocabulary(load_tokenizer(name, workspace)), texts) for name in args.names]
        print(json.dumps(rows, indent=2, ensure_ascii=False)) if args.json else print_comparison(rows)
        return
    if args.action == "train":
        corpus = open_corpus(args.corpus, workspace)
        tokenizer = train_version(args.name, args.kind, corpus, args.vocab_size, workspace)
    else:
        tokenizer = load_tokenizer(args.name, workspace)
    report = describe(tokenizer)
    print(json.dumps(report, indent=2, ensure_ascii=False)) if args.json else print_report(report)
