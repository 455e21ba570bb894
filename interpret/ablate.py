"""The command `python -m interpret.ablate`: remove parts of a model, or each in turn, and see what a text then costs.

May import `hub` and `data`; of ours here `interpret.ablation`, `cause_figures` and `figures`.
"""

import json

from data.console import cli
from data.workspace import Workspace
from hub.models import open_model
from hub.words import table
from interpret.ablation import HALVES, HOW, Effect, Sweep, effect, parse_target, sweep
from interpret.cause_figures import draw_effect, draw_sweep, effect_numbers, sweep_numbers
from interpret.figures import command_line, default_path, save, view_parser

MOST = 12  # parts told one by one, those that matter most first


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    model, tokenizer = open_model(given.run, workspace)
    how = (given.how, given.reference, given.max_tokens)
    if given.all_heads:
        found = sweep(model, tokenizer, given.prompt, *how)
        figure, numbers, detail = draw_sweep(found), sweep_numbers(found), "all"
    else:
        found = effect(model, tokenizer, given.prompt, given.remove, *how)
        figure, numbers, detail = draw_effect(found), effect_numbers(found), "-".join(map(str, found.removed))
    out = given.out or default_path(workspace, "ablate", given.run, detail)
    saved = save(figure, numbers, command_line("interpret.ablate", arguments), out)
    if given.json:
        told = {"model": given.run, "prompt": given.prompt, "how": given.how, "note": found.read.note}
        told |= sweep_record(found) if given.all_heads else effect_record(found)
        print(json.dumps(told | saved.record, ensure_ascii=False))
        return 0
    if found.read.note:
        print(found.read.note)
    print(show_sweep(found) if given.all_heads else show_effect(found))
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "ablate",
        "Remove parts of a model and see how the loss and the next token change: some of them together, or every head "
        "and every half of a layer by itself.",
        "  python -m interpret.ablate latest --prompt 'Tom had a red ball.' --remove L1H3 L0.mlp\n"
        "  python -m interpret.ablate latest --prompt 'Tom had a red ball.' --all-heads\n"
        "  python -m interpret.ablate latest --prompt 'Tom had a ball.' --all-heads --how mean --reference 'One day'",
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--remove", metavar="PART", nargs="+",
        help="L1H3 is a head; L1.attention and L1.mlp are halves of a layer; L1 is all of it; layers and heads from 0",
    )  # fmt: skip
    which.add_argument("--all-heads", action="store_true", help="each head and each half of a layer, one at a time")
    add(
        "--how", choices=HOW, default="zero",
        help="what takes a part's place: nothing, the mean of what it writes in the reference text, or what it writes "
        "there at the same position (default: zero)",
    )  # fmt: skip
    add("--reference", metavar="TEXT", default="", help="another text, for mean and resample")
    given = parser.parse_args(arguments)
    given.remove = [parse_target(name) for name in given.remove or []]
    return given


def show_effect(found: Effect) -> str:
    """The loss, and the likeliest next tokens, with and without."""
    rows = [["next token, with it", "", "next token, without", ""]]
    for (token, p), (other, q) in zip(found.likeliest_before, found.likeliest_after, strict=True):
        rows.append([repr(token), f"{p:.1%}", repr(other), f"{q:.1%}"])
    return (
        f"without {', '.join(map(str, found.removed))}: {found.loss_after:.4f} nats per token instead of "
        f"{found.loss_before:.4f} ({found.loss_after - found.loss_before:+.4f}); "
        f"the next token's distribution moves by {found.kl:.4f} nats (KL)\n\n{table(rows)}"
    )


def show_sweep(found: Sweep) -> str:
    """The parts whose removal changes the loss most."""
    ranked = sorted(changes(found).items(), key=lambda part: -abs(part[1]))
    rows = [["without", "loss changes by"], *([name, f"{change:+.4f}"] for name, change in ranked[:MOST])]
    left = f"\n\n{len(ranked) - MOST} more parts matter less" if len(ranked) > MOST else ""
    return f"{found.loss:.4f} nats per token with all parts\n\n{table(rows)}{left}"


def changes(found: Sweep) -> dict[str, float]:
    """What removing each part adds to the loss, in nats per token, by the part's name."""
    L, H = found.heads.shape
    heads = {f"L{layer}H{head}": found.heads[layer, head] for layer in range(L) for head in range(H)}
    halves = {f"L{layer}.{half}": found.halves[layer, i] for layer in range(L) for i, half in enumerate(HALVES)}
    return {name: float(loss) - found.loss for name, loss in {**heads, **halves}.items()}


def effect_record(found: Effect) -> dict:
    return {
        "removed": [str(target) for target in found.removed],
        "loss_before": found.loss_before,
        "loss_after": found.loss_after,
        "kl": found.kl,
        "likeliest_before": found.likeliest_before,
        "likeliest_after": found.likeliest_after,
    }


def sweep_record(found: Sweep) -> dict:
    return {"loss": found.loss, "loss_changes": changes(found)}


if __name__ == "__main__":
    cli(main)
