"""The commands of `python -m data.tokenizer`: train, report, compare. Uses the other modules of `data`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from data.console import Parser
from data.corpora import open_corpus
from data.sources import decode
from data.tokenizer import load_tokenizer, train_version
from data.tokenizer_kinds import KINDS
from data.tokenizer_measures import SAMPLE, compare_two, measure
from data.tokenizer_options import NORMALIZATIONS, SPECIAL_LIMIT, Options
from data.tokenizer_report import Vocabulary, describe
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
    add_options(train)
    report = actions.add_parser("report", parents=[shared], help="what a saved tokenizer is and how well it compresses")
    report.add_argument("name", help="NAME for the newest version, or NAME@vN; a folder or a Hub id")
    report.add_argument("--corpus", help="measure on this one (default: what was measured on its own corpus)")
    compare = actions.add_parser("compare", parents=[shared], help="two tokenizers on the same text")
    compare.add_argument("names", nargs=2, metavar="NAME", help="a saved tokenizer, a folder or a Hub id")
    text = compare.add_mutually_exclusive_group()
    text.add_argument("--text", help="the text itself (default: a sentence in several scripts)")
    text.add_argument("--file", type=Path, help="a text file")
    text.add_argument("--corpus", help="a corpus, whose validation text is taken")
    return top


def add_options(train: Parser) -> None:
    options = train.add_argument_group("what is done to the text")
    options.add_argument(
        "--special-pattern", metavar="REGEX", help=r"what it finds becomes entries never split, such as '<\|[a-z_]+\|>'"
    )
    options.add_argument(
        "--special-limit", type=int, default=SPECIAL_LIMIT, help=f"the most of them (default: {SPECIAL_LIMIT})"
    )
    options.add_argument("--split-digits", action="store_true", help="each digit is a piece by itself")
    options.add_argument("--prefix-space", action="store_true", help="a text begins with a space, as its words do")
    options.add_argument(
        "--normalization",
        choices=NORMALIZATIONS,
        default="none",
        help="of the text before it is cut; all but none lose what they change (default: none)",
    )


def options_of(args: argparse.Namespace) -> Options:
    return Options(args.special_pattern, args.special_limit, args.split_digits, args.prefix_space, args.normalization)


def print_report(report: dict) -> None:
    print(
        f"{report['name']}: {report['vocab_size']:,} entries, {report['settings']['kind']}{asked(report['settings'])}"
    )
    rows = [*provenance(report), ("sha256", report["sha256"])]
    rows += compression(report) if "bytes_per_token" in report else []
    rows += details(report) if "coverage" in report else []  # reports of earlier versions lack them
    for name, value in rows:
        print(f"{name:<18}{value}")
    if "scripts" in report:
        print()
        print_scripts([report])


def asked(settings: dict) -> str:
    """The options of a training in words."""
    names = {name: value for name, value in settings.items() if name not in ("kind", "algorithm", "vocab_size")}
    return "".join(f", {name.replace('_', ' ')}{'' if value is True else f' {value}'}" for name, value in names.items())


def provenance(report: dict) -> Iterator[tuple[str, str]]:
    if "corpus" in report:
        corpus = report["corpus"]
        yield "trained on", f"{corpus['name']} (SHA-256 {corpus['sha256'][:12]}), {report['created_at']}"
        yield "parent", report["parent"] or "none"
    if "measured_on" in report:
        yield "measured on", report["measured_on"]


def compression(report: dict) -> Iterator[tuple[str, str]]:
    yield "bytes a token", f"{report['bytes_per_token']:.3f} on {report['validation_bytes']:,} bytes held out"
    yield "tokens a word", f"{report['tokens_per_word']:.3f}"
    characters = report["unused_measured_on_characters"]
    yield "unused entries", f"{report['unused_entries']:,} on {characters:,} characters of training text"


def details(report: dict) -> Iterator[tuple[str, str]]:
    coverage, back = report["coverage"], report["round_trip"]
    spelled = f"{report['byte_share']:.2%} of the tokens are bytes"
    yield "characters", f"{coverage['characters']:.2%} in entries for whole characters; {spelled}"
    yield "words", f"{coverage['words']:.2%} are not cut"
    yield "unknown", f"{report['unknown_share']:.2%} of the tokens"
    lossy = "; its normalisation loses information" if report.get("loses_information") else ""
    yield "round trip", f"{back['texts'] - back['changed']:,} of {back['texts']:,} texts come back as they were{lossy}"
    if report.get("special_found"):
        yield "special, found", ", ".join(f"{text!r} {times:,}" for text, times in report["special_found"].items())
    yield "longest entries", ", ".join(f"{one['text']!r} {one['times']:,}" for one in report["longest_entries"][:8])


def print_scripts(rows: list[dict]) -> None:
    """Tokens per word and words that are not cut, by script, for each of some tokenizers."""
    if len(rows) > 1:
        print(" " * 26 + "".join(f"{row['name']:>25.24}" for row in rows))
    print(f"{'script':<16}{'words':>10}" + "".join(f"{'tokens/word':>16}{'uncut':>9}" for _ in rows))
    for name, counts in rows[0]["scripts"].items():
        shown = [row["scripts"][name] for row in rows]
        figures = "".join(f"{one['tokens_per_word']:>16.3f}{one['whole']:>9.1%}" for one in shown)
        print(f"{name:<16}{counts['words']:>10,}{figures}")


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
        f"{'unknown':>10}{'as bytes':>10}{'uncut':>10}"
    )
    for row in rows:
        figures = f"{row['tokens']:>12,}{row['bytes_per_token']:>13.3f}{row['tokens_per_word']:>13.3f}"
        shares = f"{row['unknown_share']:>10.2%}{row['byte_share']:>10.2%}{row['coverage']['words']:>10.2%}"
        print(f"{row['name']:<{width}}{row['vocab_size']:>10,}{figures}{shares}")
    print()
    print_scripts(rows)
    for row, other in (rows, rows[::-1]):
        longer = ", ".join(
            f"{one['word']!r} {one['tokens']:,} for {one['other_tokens']:,}" for one in row["longer_words"][:10]
        )
        print(f"\nmore tokens in {row['name']} than in {other['name']}: {longer or 'no word'}")
    for row in rows:
        # a part of a character shows as \xNN: its bytes were cut between tokens
        print(f"\n{row['name']}:\n{'|'.join(row['example'])}".replace("\r", "␍").rstrip("\n"))


def main() -> None:
    args = parser().parse_args()
    workspace = Workspace(args.workspace)
    if args.action == "compare":
        texts = chosen_texts(args, workspace)
        rows = compare_two(*(Vocabulary(load_tokenizer(name, workspace)) for name in args.names), texts)
        print(json.dumps(rows, indent=2, ensure_ascii=False)) if args.json else print_comparison(rows)
        return
    if args.action == "train":
        corpus = open_corpus(args.corpus, workspace)
        tokenizer = train_version(args.name, args.kind, corpus, args.vocab_size, workspace, options_of(args))
    else:
        tokenizer = load_tokenizer(args.name, workspace)
    report = describe(tokenizer)
    if args.action == "report" and args.corpus:
        corpus = open_corpus(args.corpus, workspace)
        report = {**report, **measure(tokenizer, corpus), "measured_on": corpus.name}
    print(json.dumps(report, indent=2, ensure_ascii=False)) if args.json else print_report(report)
