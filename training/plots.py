"""`python -m training.plots RUN…`: the curves and diagnostics of one or many runs, as PNG and SVG.

May import `hub` and `data`. Titles, units and guide lines are those of `hub.measures`. Drawn without pyplot, so that
threads and processes do not share a figure.
"""

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from data.console import Parser, cli
from data.workspace import Workspace
from hub import details, live
from hub.measured import Recorded, recorded
from hub.measures import MEASURES, SPIKE, Measure
from hub.runs import Run

AXES = {"step": "optimizer step", "tokens": "tokens seen", "seconds": "seconds of training"}
ACROSS, WIDTH, HEIGHT = 3, 4.6, 3.5  # charts side by side; inches of each
DPI = 130
POINTS = 1000  # of a line: more cannot be seen, and make a heavy SVG
LEGEND = 7  # layers named in the legend: first, last and some between
LETTERS = 68  # of a line of words under a chart
NOISE = {"linewidth": 0.6, "alpha": 0.25}
DEPTH = colormaps["viridis"]
LOSS = Measure("train_loss", "Loss", "nats per token", "", log=True)
RATE = Measure("learning_rate", "Learning rate", "learning rate", "")


@dataclass(frozen=True)
class Drawn:
    """One run as it is drawn: its name in the legend, colour, metrics, floor in nats per token, and measures."""

    name: str
    color: str
    metrics: live.Live
    floor: float | None
    measures: dict[str, Recorded]


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    found = {run.id: run for run in (Run.open(workspace, ref) for ref in given.runs)}  # each once
    runs = [load(run, given.x, f"C{i}") for i, run in enumerate(found.values())]
    empty = [run.name for run in runs if not run.metrics.columns["step"]]
    if empty:
        raise ValueError(f"run {empty[0]} has measured nothing yet: there is nothing to draw")
    out = given.out or default_folder(workspace, runs)
    out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for run in runs for name in run.measures))
    figures = {"curves": draw_curves(runs, given.x)}
    if names:
        figures["diagnostics"] = draw_diagnostics(runs, names, given.x)
    files = save(figures, out)
    if given.json:
        print(json.dumps({"runs": list(found), "x": given.x, "measures": names, "files": list(map(str, files))}))
    else:
        print(f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {len(names)} measures against {AXES[given.x]}")
        print("\n".join(map(str, files)))
    return 0


def parse(arguments: list[str] | None):
    parser = Parser(
        prog="python -m training.plots",
        description="Draw the curves and every recorded diagnostic of one or many runs, as PNG and SVG.",
        epilog="examples:\n  python -m training.plots latest\n"
        "  python -m training.plots rope-3f2a91 alibi-77c0de --x tokens --out figures",
    )
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="an id, the beginning of one, a name (its newest run) or `latest`")
    add("--out", metavar="DIR", type=Path, help="where the files go (default: figures/plots-RUN in the workspace)")
    add("--x", choices=AXES, default="step", help="what curves are drawn against (default: step)")
    add("--json", action="store_true", help="print what was drawn and where, for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    return parser.parse_args(arguments)


def load(run: Run, x: str, color: str) -> Drawn:
    metrics = live.read(run.path)
    measures = {one.measure.name: one for one in recorded(metrics, x, POINTS)}
    return Drawn(run.id, color, metrics, details.floor(run, run.info()), measures)


def default_folder(workspace: Workspace, runs: Sequence[Drawn]) -> Path:
    """Named after the first run, and how many others are with it; drawing the same again replaces it."""
    more = f"-and-{len(runs) - 1}" if len(runs) > 1 else ""
    return workspace.room("figures") / f"plots-{re.sub(r'[^A-Za-z0-9._-]+', '-', runs[0].name)}{more}"


def save(figures: dict[str, Figure], out: Path) -> list[Path]:
    files = [out / f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
    for file in files:
        figures[file.stem].savefig(file, dpi=DPI)
    return files


def draw_curves(runs: Sequence[Drawn], x: str) -> Figure:
    """Loss with floor and spikes, large; learning rate and gradient norm below it."""
    figure = Figure(figsize=(9.0, 7.5), layout="constrained")
    axes = figure.subplot_mosaic([["loss", "loss"], ["rate", "norm"]], height_ratios=[1.7, 1])
    for run in runs:
        draw_loss(axes["loss"], run, x)
        axes["rate"].plot(*live.thin(*run.metrics.measured(RATE.name, x), POINTS), color=run.color, linewidth=1.4)
        if "grad_norm" in run.measures:
            draw_whole(axes["norm"], run.measures["grad_norm"], run.color)
    for floor in dict.fromkeys(run.floor for run in runs if run.floor is not None):
        words = f"the corpus's entropy ({floor:.3f})"
        axes["loss"].axhline(floor, color="black", linewidth=1.0, linestyle=":", label=words)
    for place, measure in (("loss", LOSS), ("rate", RATE), ("norm", MEASURES["grad_norm"])):
        label(axes[place], measure, x)
    axes["loss"].legend(frameon=False, fontsize=9)
    return figure


def draw_loss(axes: Axes, run: Drawn, x: str) -> None:
    """Training loss, smooth before its own noise; validation loss; spikes."""
    across, losses = run.metrics.measured("train_loss", x)
    smooth = live.smooth(across, losses)
    if len(smooth[0]) < len(across):
        axes.plot(*live.thin(across, losses, 3 * POINTS), color=run.color, **NOISE)
    axes.plot(*live.thin(*smooth, POINTS), color=run.color, linewidth=1.6, label=f"{run.name}: training")
    validation = run.metrics.measured("val_loss", x)
    if len(validation[0]):
        style = {"marker": "o", "markersize": 3.5, "linestyle": "--", "linewidth": 1.0}
        axes.plot(*validation, color=run.color, label=f"{run.name}: validation", **style)
    spiked = np.isfinite(run.metrics.numbers(SPIKE))
    if spiked.any():
        at, heights = run.metrics.across(x)[spiked], run.metrics.numbers("train_loss")[spiked]
        axes.plot(at, heights, color=run.color, linestyle="", marker="x", label=f"{run.name}: loss spike")


def draw_diagnostics(runs: Sequence[Drawn], names: Sequence[str], x: str) -> Figure:
    """A chart for each measure, three side by side; in words below it what is healthy."""
    rows = -(-len(names) // ACROSS)
    figure = Figure(figsize=(ACROSS * WIDTH, rows * HEIGHT + 0.4), layout="constrained")
    grid = figure.subplots(rows, ACROSS, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw_measure(axes, runs, MEASURES[name], x)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    figure.legend(handles=keys(runs), loc="outside upper left", frameon=False, ncols=8)
    return figure


def draw_measure(axes: Axes, runs: Sequence[Drawn], measure: Measure, x: str) -> None:
    """One measure of all runs: the layers of a single run from dark to light, of several in each one's own colour."""
    for run in runs:
        if one := run.measures.get(measure.name):
            for layer, curve in one.layers.items():
                look = shade(layer, run) if len(runs) == 1 else {"color": run.color, "alpha": 0.3}
                axes.plot(*curve, linewidth=1.0, **look)
            draw_whole(axes, one, "black" if len(runs) == 1 else run.color)
    if measure.guide is not None:
        axes.axhline(measure.guide, color="black", linewidth=1.0, linestyle=":")
    label(axes, measure, x)
    axes.annotate(
        textwrap.fill(measure.healthy, LETTERS), (0, 0), (0, -36), "axes fraction", "offset points",
        va="top", fontsize=7, color="0.35",
    )  # fmt: skip


def draw_whole(axes: Axes, one: Recorded, color: str) -> None:
    """The run's own figure, before its noise where it was recorded often."""
    axes.plot(*one.noise, color=color, **NOISE)
    axes.plot(*one.whole, color=color, linewidth=1.6)


def keys(runs: Sequence[Drawn]) -> list[Line2D]:
    """The legend of the diagnostics: runs, or a single run's layers."""
    if len(runs) > 1:
        return [Line2D([], [], color=run.color, label=run.name) for run in runs]
    (run,) = runs
    layers = list(dict.fromkeys(layer for one in run.measures.values() for layer in one.layers))
    places = np.linspace(0, len(layers) - 1, min(LEGEND, len(layers))).astype(int).tolist()
    lines = [Line2D([], [], label=layers[place], **shade(layers[place], run)) for place in places]
    return [Line2D([], [], color="black", label=run.name), *lines]


def shade(layer: str, run: Drawn) -> dict:
    """How a layer's line looks: dark for the first, light for the last; grey dashes for what is in no layer."""
    numbers = [int(name[6:]) for one in run.measures.values() for name in one.layers if name.startswith("layer ")]
    if not layer.startswith("layer "):
        return {"color": "0.5", "linestyle": "--"}
    return {"color": DEPTH(0.92 * int(layer[6:]) / max(max(numbers), 1))}  # the lightest yellow is lost on white


def label(axes: Axes, measure: Measure, x: str) -> None:
    """Title, units, and a logarithmic scale where the measure wants one and every value is above 0."""
    values = np.concatenate([np.empty(0), *(line.get_ydata() for line in axes.lines)])
    if measure.log and len(values) and np.nanmin(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 3M
    axes.set_title(measure.title, fontsize=11, loc="left")
    axes.set_xlabel(AXES[x], fontsize=8, loc="right")
    axes.set_ylabel(textwrap.fill(measure.unit, 36), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    cli(main)
