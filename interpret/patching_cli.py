"""The command of `python -m interpret.patching`: a figure of what each patch restores, the numbers, and a table.

May import `hub` and `data`; of ours here `interpret.patching`, `cause_figures` and `figures`.
"""

import json

from data.workspace import Workspace
from hub.models import open_model
from hub.words import table
from interpret.cause_figures import draw_patching, patching_numbers
from interpret.figures import command_line, default_path, save, view_parser
from interpret.patching import DEFAULT, PLACES, Patching, patching

MOST = 5  # places told for each site, those that restore most first


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    model, tokenizer = open_model(given.run, workspace)
    found = patching(model, tokenizer, given.clean, given.corrupted, given.answer, given.wrong, given.sites)
    saved = save(
        draw_patching(found), patching_numbers(found), command_line("interpret.patching", arguments),
        given.out or default_path(workspace, "patching", given.run),
    )  # fmt: skip
    if given.json:
        told = record(given.run, found) | saved.record
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(f"{said(found)}\n\n{show(found)}\n\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "patching",
        "Put activations of a clean run into a corrupted one, one place at a time, and see which of them bring the "
        "clean answer back: 0 changes nothing, 1 brings all of it back.",
        "  python -m interpret.patching latest --clean 'Lily gave Tom the ball. Tom said' \\\n"
        "      --corrupted 'Lily gave Ben the ball. Ben said'\n"
        "  python -m interpret.patching Qwen/Qwen3-0.6B --clean 'Mary and John went out. John gave a cup to' \\\n"
        "      --corrupted 'Mary and John went out. Mary gave a cup to' --answer ' Mary' --wrong ' John'",
        prompt=False,
    )
    add = parser.add_argument
    add("--clean", metavar="TEXT", required=True, help="the prompt that calls for the answer")
    add("--corrupted", metavar="TEXT", required=True, help="one of equally many tokens that calls for the wrong one")
    add("--answer", metavar="TOKEN", default="", help="default: the likeliest next token behind the clean prompt")
    add("--wrong", metavar="TOKEN", default="", help="default: the likeliest next token behind the corrupted prompt")
    add(
        "--sites", metavar="SITE", nargs="+", choices=PLACES, default=list(DEFAULT),
        help=f"where to patch: {'; '.join(f'{site}, {what}' for site, what in PLACES.items())} "
        f"(default: {' '.join(DEFAULT)})",
    )  # fmt: skip
    return parser.parse_args(arguments)


def said(found: Patching) -> str:
    """What is measured, in a sentence."""
    return (
        f"logit({found.answer.token!r}) - logit({found.wrong.token!r}) is {found.clean_difference:+.3f} behind the "
        f"clean prompt and {found.corrupted_difference:+.3f} behind the corrupted one"
    )


def show(found: Patching) -> str:
    """The places of each site that bring most of the difference back."""
    rows = [["site", "layer", "token or head", "restored"]]
    for site in found.differences:
        values = found.restored(site)
        for flat in values.argsort(axis=None)[::-1][:MOST]:
            layer, place = divmod(int(flat), values.shape[1])
            what = f"head {place}" if site == "z" else f"{place} {found.clean.tokens[place]!r}"
            rows.append([site, str(layer), what, f"{values[layer, place]:.3f}"])
    return f"{table(rows)}\n\n0: as behind the corrupted prompt, 1: as behind the clean one"


def record(ref: str, found: Patching) -> dict:
    return {
        "model": ref,
        "clean": found.clean.tokens,
        "corrupted": found.corrupted.tokens,
        "answer": found.answer.token,
        "wrong": found.wrong.token,
        "clean_difference": found.clean_difference,
        "corrupted_difference": found.corrupted_difference,
        "restored": {site: found.restored(site).round(5).tolist() for site in found.differences},
    }
