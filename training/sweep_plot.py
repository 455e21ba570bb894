"""A sweep's figure: each point's mean with its interval, and the single runs behind it. Uses matplotlib without pyplot,
so that threads and processes do not share a figure."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.workspace import write_atomic
from training.sweep_results import ordered

WIDTH, ROW, FRAME = 7.0, 0.34, 1.5  # inches: of the figure, of one point, of all that is around them
DOTS = 130  # dots an inch of the PNG


def draw_points(axes: Axes, found: Mapping) -> None:
    """One row a point, the best on top.

    Args:
        found: as `training.sweep_results.results` returns it.
    """
    points = [one for one in ordered(found) if one["mean"] is not None]
    for row, one in enumerate(points):
        values = [run["value"] for run in one["runs"] if run["value"] is not None]
        axes.plot(values, [row] * len(values), "o", color="tab:gray", alpha=0.45, markersize=4, zorder=2)
        if one["interval"]:
            axes.plot(one["interval"], [row, row], color="tab:blue", linewidth=2.2, alpha=0.55, zorder=3)
        axes.plot([one["mean"]], [row], "D", color="tab:blue", markersize=5.5, zorder=4)
    axes.set_yticks(range(len(points)), [one["label"] for one in points])
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.set_xlabel(found["metric_in_words"])
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_plot(folder: Path, found: Mapping) -> None:
    """plot.png and plot.svg in the folder."""
    figure = Figure(figsize=(WIDTH, FRAME + ROW * max(len(found["points"]), 2)), layout="constrained")
    axes = figure.subplots()
    draw_points(axes, found)
    axes.set_title("mean and 95 % interval over seeds (diamond and bar); each run (dots)", fontsize=9, loc="left")
    with mpl.rc_context({"svg.hashsalt": found["sweep"]}):  # the same results, the same file
        for kind, settings in (("png", {"dpi": DOTS}), ("svg", {"metadata": {"Date": None}})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, **settings)
            write_atomic(folder / f"plot.{kind}", content.getvalue())
