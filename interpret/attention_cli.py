"""The command of `python -m interpret.attention`: a figure of the heads, the numbers behind it, and a table.

May import `hub` and `data`; of ours here `interpret.attention` and `figures`.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from data.workspace import Workspace
from hub.models import open_model
from hub.registry import table
from interpret.attention import Attention, patterns, statistics
from interpret.figures import command_line, default_path, label, save, view_parser

MAX_ROWS = 64  # a table of more heads is one of layers: each head's numbers are in the file
LABELS = 64  # more tokens than that cannot be told apart along an axis of the figure
# Colour goes with the square root of the weight: among a hundred tokens even a strong weight is a few percent.
SCALE = {"cmap": "Blues", "norm": PowerNorm(0.5, 0, 1)}


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    attention = patterns(*open_model(given.run, workspace), given.prompt, given.max_tokens)
    chosen = None if given.layer is None else (given.layer, given.head)
    figure = draw_heads(attention) if chosen is None else draw_head(attention, *chosen)
    heads = statistics(attention.weights, attention.windows)
    detail = "" if chosen is None else "layer-{}-head-{}".format(*chosen)
    out, numbers = save(
        figure, numbers_of(attention, heads), command_line("interpret.attention", arguments),
        given.out or default_path(workspace, "attention", given.run, detail),
    )  # fmt: skip
    if given.json:
        print(json.dumps(record(given, attention, heads, out, numbers), indent=2, ensure_ascii=False))
        return 0
    if attention.note:
        print(attention.note)
    print(show(attention, heads))
    print(f"\nfigure   {out}\nnumbers  {numbers}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "attention",
        "Draw what every head of a model attends to in a prompt, and count how far back and how sharply.",
        "  python -m interpret.attention latest --prompt 'The cat saw the dog, and the dog ran.'\n"
        "  python -m interpret.attention latest@best --prompt 'The cat saw it.' --layer 0 --head 2 --out head.png\n"
        "  python -m interpret.attention Qwen/Qwen3-0.6B --prompt 'To be or not to be' --json",
    )
    parser.add_argument("--layer", metavar="L", type=int, help="with --head: draw that one head, large; from 0")
    parser.add_argument("--head", metavar="H", type=int, help="with --layer; heads count from 0")
    given = parser.parse_args(arguments)
    if (given.layer is None) != (given.head is None):
        raise ValueError("--layer and --head name one head together: give both, or neither for all heads")
    return given


def draw_heads(attention: Attention) -> Figure:
    """All heads: a row a layer, a column a head."""
    L, H, T, _ = attention.weights.shape
    side = min(1.5, max(0.5, 12 / H))  # inches a head
    figure = Figure(figsize=(side * H + 1.6, side * L + 1.2), layout="constrained")
    axes = figure.subplots(L, H, squeeze=False)
    for (row, head), axis in np.ndenumerate(axes):
        image = axis.imshow(attention.weights[row, head], **SCALE)
        axis.set(xticks=[], yticks=[])
        if row == 0:
            axis.set_title(f"head {head}" if H <= 16 else head, fontsize=8)
        if head == 0:
            axis.set_ylabel(f"layer {attention.layers[row]}", fontsize=8)
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
    figure.supxlabel(f"token looked at (0 to {T - 1})", fontsize=9)
    figure.supylabel("token that looks, from the top", fontsize=9)
    return figure


def draw_head(attention: Attention, layer: int, head: int) -> Figure:
    """One head, large, with the tokens along both axes."""
    pattern = attention.pattern(layer, head)
    T = len(pattern)
    side = min(11.0, 3.5 + 0.13 * T)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(pattern, **SCALE)
    if T <= LABELS:
        words = [label(token) for token in attention.tokens]
        axis.set_xticks(range(T), words, rotation=90, fontsize=8)
        axis.set_yticks(range(T), words, fontsize=8)
    axis.set(xlabel="token looked at", ylabel="token that looks", title=f"layer {layer}, head {head}")
    figure.colorbar(image, label="attention weight", shrink=0.8, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
    return figure


def numbers_of(attention: Attention, heads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that the figure shows and the table says."""
    return {
        "weights": attention.weights,
        "tokens": np.array(attention.tokens),
        "ids": np.array(attention.ids),
        "layers": np.array(attention.layers),
        **heads,
    }


def show(attention: Attention, heads: dict[str, np.ndarray]) -> str:
    """The statistics as a table, a line a head; a line a layer, the mean over its heads, where heads are many."""
    L, H = attention.weights.shape[:2]
    by_layer = L * H > MAX_ROWS
    rows = [["layer", "head", "distance", "entropy", "of the most", "on the first", "on the previous", "on itself"]]
    for row, layer in enumerate(attention.layers):
        for head in ["mean"] if by_layer else range(H):
            value = {name: values[row].mean() if by_layer else values[row, head] for name, values in heads.items()}
            shares = [f"{value[name]:.1%}" for name in ("relative_entropy", "first", "previous", "itself")]
            rows.append([str(layer), str(head), f"{value['distance']:.2f}", f"{value['entropy']:.3f}", *shares])
    units = (
        "distance: how many tokens back, on average; entropy: in nats, and as a share of the most it could be;\n"
        "then the attention on the first token, on the previous one and on the token itself"
    )
    return f"{table(rows)}\n\n{units}"


def record(given, attention: Attention, heads: dict[str, np.ndarray], figure: Path, numbers: Path) -> dict:
    """What was measured and where it lies; the weights themselves are in the file of numbers."""
    return {
        "model": given.run,
        "prompt": given.prompt,
        "note": attention.note,
        "tokens": attention.tokens,
        "ids": attention.ids,
        "layers": attention.layers,
        "statistics": {name: np.round(values, 6).tolist() for name, values in heads.items()},
        "figure": str(figure),
        "numbers": str(numbers),
    }
