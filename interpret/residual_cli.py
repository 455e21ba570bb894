"""The command of `python -m interpret.residual`: a figure of the residual stream, the numbers, and tables.

May import `hub` and `data`; of ours `interpret.residual_figure` and what it draws.
"""

import json
from dataclasses import asdict

import numpy as np

from data.workspace import Workspace
from hub.models import open_model
from hub.registry import table
from interpret.figures import Saved, command_line, default_path, save, view_parser
from interpret.residual import Stream, Values
from interpret.residual_figure import View, draw, largest, numbers, read_view

ROWS = 24  # shares that are printed one by one


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    view = read_view(
        *open_model(given.run, workspace), given.prompt, given.token, given.minus, given.position, given.by_head,
        given.layer, given.site, given.max_tokens,
    )  # fmt: skip
    out = given.out or default_path(workspace, "residual", given.run)
    saved = save(draw(view), numbers(view), command_line("interpret.residual", arguments), out)
    if given.json:
        print(json.dumps(record(given, view, saved), indent=2, ensure_ascii=False))
        return 0
    parts = [view.stream.note, by_layer(view.stream), shares(view), values_table(view.values)]
    print("\n\n".join(filter(None, parts)))
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "residual",
        "Show the residual stream of a prompt: its norms, what each part adds to it and to a token's logit, which "
        "tokens and layers resemble each other, and the values of any site.",
        "  python -m interpret.residual latest --prompt 'Tom had a red ball, and Lily'\n"
        "  python -m interpret.residual latest --prompt 'Tom had a red' --token ' ball' --minus ' car' --by-head\n"
        "  python -m interpret.residual Qwen/Qwen3-0.6B --prompt 'To be or not' --site blocks.3.mlp_post --json",
    )
    add = parser.add_argument
    add("--token", metavar="T", default="", help="whose logit is taken apart (default: the likeliest next token)")
    add("--minus", metavar="T2", default="", help="a token whose logit is subtracted from it")
    add("--position", metavar="P", type=int, default=-1, help="behind which token, from 0 (default: the last)")
    add("--by-head", action="store_true", help="split each layer's attention into its heads")
    add("--layer", metavar="L", type=int, help="where tokens are compared (default: the middle)")
    add(
        "--site", metavar="SITE", default="resid_post",
        help="whose values are counted: mlp_post in all layers, blocks.3.mlp_post in one (default: resid_post)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def by_layer(stream: Stream) -> str:
    """Norms and cosines, a line a layer."""
    rows = [["layer", "stream norm", "rms", "attention adds", "cosine", "feed-forward adds", "cosine", "tokens alike"]]
    norms, rms = np.median(stream.norms, axis=1), np.median(stream.rms, axis=1)
    for place, alike in enumerate(stream.alike):
        row = ["out" if place == stream.layers else str(place), f"{norms[place]:.4g}", f"{rms[place]:.4g}"]
        for part in stream.added if place < stream.layers else ():
            row += [f"{np.median(stream.added[part][place]):.4g}", f"{stream.cosines[part][place].mean():+.3f}"]
        rows.append([*row, *[""] * (7 - len(row)), f"{alike:+.3f}"])
    units = (
        "medians over tokens of the norms, means of the cosines; the stream is what enters the layer, `out` what\n"
        "leaves the last one; alike: the mean cosine between different tokens' streams"
    )
    return f"{table(rows)}\n\n{units}"


def shares(view: View) -> str:
    """The sum that a logit is, or why it is none."""
    one = view.attribution
    if one is None:
        return view.refused
    rows = [["part", "share"], *([name, f"{value:+.4f}"] for name, value in largest(one.shares, ROWS).items())]
    rows += [["bias", f"{one.bias:+.4f}"], ["rounding", f"{one.rest:+.1e}"], ["together", f"{one.logit:+.4f}"]]
    return "\n".join(filter(None, [one.target, table(rows), one.capped]))


def values_table(values: Values) -> str:
    rows = [["site", "values", "mean", "std", "kurtosis", "largest", "at", "near 0"]]
    for name, one in values.statistics.items():
        numbers = [f"{one.mean:.4g}", f"{one.std:.4g}", f"{one.kurtosis:.1f}", f"{one.largest:.4g}"]
        rows.append([name, f"{one.count:,}", *numbers, ", ".join(map(str, one.at)), f"{one.near_zero:.1%}"])
    return table(rows)


def record(given, view: View, saved: Saved) -> dict:
    """What was measured and where it lies; by token, the numbers are in the file."""
    stream, one, values = view.stream, view.attribution, view.values
    return {
        "model": given.run,
        "prompt": given.prompt,
        "note": stream.note,
        "tokens": stream.tokens,
        "norms": np.median(stream.norms, axis=1).tolist(),
        "rms": np.median(stream.rms, axis=1).tolist(),
        "added": {part: np.median(norms, axis=1).tolist() for part, norms in stream.added.items()},
        "cosines": {part: cosines.mean(1).tolist() for part, cosines in stream.cosines.items()},
        "alike": stream.alike.tolist(),
        "attribution": {**asdict(one), "rest": one.rest} if one else None,
        "refused": view.refused,
        "values": {name: asdict(one) for name, one in values.statistics.items()},
        "figure": str(saved.figure),
        "numbers": str(saved.numbers),
    }
