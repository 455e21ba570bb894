"""The command of `python -m interpret.attention`: a figure of the heads, the numbers behind it, and a table.

May import `hub` and `data`; of ours here `interpret.attention`, `heads` and `figures`.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.workspace import Workspace
from hub.models import open_model
from hub.registry import table
from interpret.attention import STATISTICS, Attention, patterns, pool, statistics
from interpret.figures import DPI, command_line, default_path, label, save, view_parser
from interpret.heads import HeadScores, looks_like

MAX_ROWS = 64  # a table of more heads is one of layers: each head's numbers are in the file
LABELS = 64  # more tokens than that cannot be told apart along an axis of the figure
# Colour goes with the square root of the weight: among a hundred tokens even a strong weight is a few percent.
SCALE = {"cmap": "Blues", "norm": PowerNorm(0.5, 0, 1)}


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    model, tokenizer = open_model(given.run, workspace)
    attention = patterns(model, tokenizer, given.prompt, given.max_tokens)
    chosen = None if given.layer is None else (given.layer, given.head)
    heads = statistics(attention.weights, attention.windows)
    if given.by_layer:
        figure, detail = draw_layers(attention, heads), "by-layer"
    else:
        figure = draw_heads(attention) if chosen is None else draw_head(attention, *chosen)
        detail = "" if chosen is None else "layer-{}-head-{}".format(*chosen)
    try:
        looks = looks_like(model, tokenizer, attention.ids, attention.layers)
    except ValueError:  # its weights can be had all the same
        looks = None
    saved = save(
        figure, numbers_of(attention, heads, looks), command_line("interpret.attention", arguments),
        given.out or default_path(workspace, "attention", given.run, detail),
    )  # fmt: skip
    if given.json:
        print(json.dumps(record(given, attention, heads, looks, *saved), indent=2, ensure_ascii=False))
        return 0
    if attention.note:
        print(attention.note)
    print(show(attention, heads, looks))
    print(f"\n{saved.lines}")
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
    parser.add_argument("--by-layer", action="store_true", help="draw the numbers of the heads layer by layer instead")
    given = parser.parse_args(arguments)
    if given.by_layer and given.layer is not None:
        raise ValueError("--by-layer draws all heads: leave out --layer and --head, or --by-layer")
    if (given.layer is None) != (given.head is None):
        raise ValueError("--layer and --head name one head together: give both, or neither for all heads")
    return given


def draw_heads(attention: Attention) -> Figure:
    """All heads: a row a layer, a column a head. One picture: an axis for each of hundreds would take half a minute."""
    L, H, T, _ = attention.weights.shape
    side = min(1.5, max(0.5, 12 / H))  # inches a head
    small = pool(attention.weights, round(side * DPI))  # no more points than pixels
    points = small.shape[-1]
    pitch = points + max(1, points // 16)  # from a head's corner to the next one's
    sheet = np.full((L * pitch, H * pitch), np.nan, dtype=np.float32)  # NaN is left white
    for row, head in np.ndindex(L, H):
        sheet[row * pitch :, head * pitch :][:points, :points] = small[row, head]

    figure = Figure(figsize=(side * H + 1.6, side * L + 1.2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(sheet, **SCALE)
    middle = (points - 1) / 2
    names = [f"head {head}" if H <= 16 else str(head) for head in range(H)]
    axis.set_xticks(pitch * np.arange(H) + middle, names, fontsize=8)
    layers = [f"layer {layer}" for layer in attention.layers]
    axis.set_yticks(pitch * np.arange(L) + middle, layers, fontsize=8, rotation=90, va="center")
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.set_frame_on(False)
    axis.set_xlabel(f"token looked at (0 to {T - 1})", fontsize=9)
    axis.set_ylabel("token that looks, from the top", fontsize=9)
    figure.colorbar(image, label="attention weight", shrink=0.8, aspect=40, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
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


def draw_layers(attention: Attention, heads: dict[str, np.ndarray]) -> Figure:
    """Each statistic over the layers: a dot a head, a line through the means."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axis, (name, (title, unit)) in zip(figure.subplots(2, 3).flat, STATISTICS.items(), strict=True):
        values = heads[name] * (100 if unit == "%" else 1)
        axis.plot(attention.layers, values, "o", color="#9aa5b1", ms=4)
        axis.plot(attention.layers, values.mean(1), color="C0")
        axis.set_title(title, fontsize=9)
        axis.set_ylabel(unit, fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("layer; a dot is a head, the line their mean", fontsize=9)
    return figure


def numbers_of(attention: Attention, heads: dict[str, np.ndarray], looks: HeadScores | None) -> dict[str, np.ndarray]:
    """Everything that the figure shows and the table says."""
    return {
        "weights": attention.weights,
        "tokens": np.array(attention.tokens),
        "ids": np.array(attention.ids),
        "layers": np.array(attention.layers),
        **heads,
        **({f"score_{kind}": of for kind, of in looks.scores.items()} if looks else {}),
    }


def show(attention: Attention, heads: dict[str, np.ndarray], looks: HeadScores | None) -> str:
    """The statistics as a table, a line a head; a line a layer, the mean over its heads, where heads are many."""
    L, H = attention.weights.shape[:2]
    by_layer = L * H > MAX_ROWS
    rows = [["layer", "head", "distance", "entropy", "of the most", "on the first", "on the previous", "on itself"]]
    rows[0] += ["looks like"] if looks and not by_layer else []
    for row, layer in enumerate(attention.layers):
        for head in ["mean"] if by_layer else range(H):
            value = {name: values[row].mean() if by_layer else values[row, head] for name, values in heads.items()}
            shares = [f"{value[name]:.1%}" for name in ("relative_entropy", "first", "previous", "itself")]
            rows.append([str(layer), str(head), f"{value['distance']:.2f}", f"{value['entropy']:.3f}", *shares])
            rows[-1] += [looks.called(layer, head) or "–"] if looks and not by_layer else []
    units = (
        "distance: how many tokens back, on average; entropy: in nats, and as a share of the most it could be;\n"
        "then the attention on the first token, on the previous one and on the token itself"
    )
    if looks:
        named = ", ".join(f"{head} {name} ({score:.2f})" for head, name, score in looks.names()[:MAX_ROWS])
        units += f"\nlooks like, on random tokens that are repeated: {named or 'no head is of a known kind'}"
    return f"{table(rows)}\n\n{units}"


def record(
    given, attention: Attention, heads: dict[str, np.ndarray], looks: HeadScores | None, figure: Path, numbers: Path
) -> dict:
    """What was measured and where it lies; the weights themselves are in the file of numbers."""
    return {
        "model": given.run,
        "prompt": given.prompt,
        "note": attention.note,
        "tokens": attention.tokens,
        "ids": attention.ids,
        "layers": attention.layers,
        "statistics": {name: np.round(values, 6).tolist() for name, values in heads.items()},
        "looks_like": {head: {"kind": name, "score": round(score, 4)} for head, name, score in looks.names()}
        if looks
        else None,
        "figure": str(figure),
        "numbers": str(numbers),
    }
