"""The command of `python -m interpret.compare`: a figure of where two models differ, the numbers, and tables.

May import `hub` and `data`; of ours here `interpret.compare`, `compare_weights`, `compare_figure` and `figures`.
"""

import json

import numpy as np

from data.workspace import Workspace
from hub.models import open_model
from hub.registry import table
from interpret.compare import Comparison, compare, samples
from interpret.compare_figure import draw, numbers_of
from interpret.compare_weights import Changes, weight_changes
from interpret.figures import command_line, default_path, save, view_parser
from interpret.writing import SEEDS, Token

ROWS = 12  # of each table: the file of numbers has them all
NEW_TOKENS = 40


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    first, second = open_model(given.run, workspace), open_model(given.other, workspace)
    found = compare(first, second, given.prompt, given.max_tokens)
    changes, why = changes_or_why(first[0], second[0])
    texts = samples(first, second, found.tokens, given.new_tokens, given.seed) if given.new_tokens else ([], [])
    names = given.run, given.other
    saved = save(
        draw(found, changes, names), numbers_of(found, changes), command_line("interpret.compare", arguments),
        given.out or default_path(workspace, "compare", given.run, given.other),
    )  # fmt: skip
    if given.json:
        result = record(given, found, changes, why, texts) | saved.record
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return 0
    print(show(found, changes, why, names))
    for name, text in zip(names, texts, strict=True):
        if text:
            print(f"\n── {name} goes on, seed {given.seed} ──\n{''.join(token.text for token in text)}")
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "compare",
        "Put two models side by side on one prompt: attention, what the layers would say, losses, weights, samples.",
        "  python -m interpret.compare latest@step-000500 latest --prompt 'Tom had a red ball.'\n"
        "  python -m interpret.compare Qwen/Qwen3-0.6B my-adapter --prompt 'To be or not to be' --seed 3\n"
        "  python -m interpret.compare latest latest@best --prompt 'One day' --new-tokens 0 --json",
    )
    parser.add_argument("other", metavar="OTHER[@REVISION]", help="the second model, named likewise")
    parser.add_argument(
        "--new-tokens", metavar="N", type=int, default=NEW_TOKENS,
        help=f"let both go on for N tokens; 0 for no samples (default: {NEW_TOKENS})",
    )  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the samples, for both (default: 0)")
    given = parser.parse_args(arguments)
    if given.new_tokens < 0:
        raise ValueError(f"--new-tokens {given.new_tokens} must be at least 0")
    if not 0 <= given.seed < SEEDS:
        raise ValueError(f"--seed {given.seed} must be at least 0 and below 2^64")
    return given


def changes_or_why(first, second) -> tuple[Changes | None, str]:
    """The change of the weights, or a sentence that says why there is none to see."""
    try:
        return weight_changes(first, second), ""
    except ValueError as error:
        return None, str(error)


def show(found: Comparison, changes: Changes | None, why: str, names: tuple[str, str]) -> str:
    """What was found as text: the largest differences of each kind."""
    one, other = found.mean_losses
    parts = [
        found.tokens.note,
        table(
            [
                ["model", f"nats per {found.tokens.unit}", "difference"],
                [names[0], f"{one:.4f}", ""],
                [names[1], f"{other:.4f}", f"{other - one:+.4f}"],
            ]
        ),
    ]
    if found.heads is not None:
        heads = [[f"L{layer}H{head}", f"{value:.4f}"] for layer, head, value in largest_heads(found)[:ROWS]]
        parts.append(table([["head", "divergence of attention, 0 to 1"], *heads]))
    if found.lens is not None:
        rows = [[name, f"{mean:.4f}"] for name, mean in zip(found.rows, found.lens.mean(1), strict=True)]
        parts.append(table([["behind", "KL of what it would say next, mean in nats"], *rows]))
    if changes is not None:
        largest = sorted(changes.matrices, key=lambda one: -one.relative)[:ROWS]
        rows = [[one.name, f"{one.norm:.4g}", f"{one.change:.4g}", f"{one.relative:.2%}"] for one in largest]
        parts.append(table([["matrix", "spectral norm", "of its change", "share"], *rows]))
        parts.append(left_out(changes))
    parts += [*found.missing.values(), why]
    return "\n\n".join(part for part in parts if part)


def left_out(changes: Changes) -> str:
    """A sentence about what was not compared, "" for nothing."""
    if not changes.left_out:
        return ""
    names = ", ".join(changes.left_out[:3]) + (" …" if len(changes.left_out) > 3 else "")
    return f"Matrices that are not in both models with the same shape: {len(changes.left_out)} ({names})."


def largest_heads(found: Comparison) -> list[tuple[int, int, float]]:
    """(layer, head, divergence), the largest first."""
    order = np.argsort(-found.heads, axis=None, kind="stable")
    rows, heads = np.unravel_index(order, found.heads.shape)
    return [
        (found.layers[row], int(head), float(found.heads[row, head])) for row, head in zip(rows, heads, strict=True)
    ]


def record(given, found: Comparison, changes: Changes | None, why: str, texts: tuple[list[Token], list[Token]]) -> dict:
    """What was measured, for a program; what is missing is null, with the reason."""
    one, other = found.mean_losses
    return {
        "models": [given.run, given.other],
        "prompt": given.prompt,
        "note": found.tokens.note,
        "tokens": found.tokens.units,
        "aligned": found.tokens.share,
        "mean_losses": [one, other],
        "losses": [[None if np.isnan(x) else round(x, 6) for x in side] for side in found.losses.tolist()],
        "layers": found.layers,
        "attention_divergence": None if found.heads is None else np.round(found.heads, 6).tolist(),
        "lens_rows": found.rows,
        "lens_kl": None if found.lens is None else np.round(found.lens, 6).tolist(),
        "weights": None
        if changes is None
        else [
            {"name": one.name, "norm": one.norm, "change": one.change, "relative": one.relative if one.norm else None}
            for one in changes.matrices
        ],
        "missing": found.missing | ({"weights": why} if why else {}),
        "seed": given.seed,
        "samples": ["".join(token.text for token in text) for text in texts],
    }
