"""How the experiments are drawn: curves with bands, points with intervals. Uses matplotlib without pyplot, so that
threads and processes do not share a figure. Imports `training` for its statistics.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.sweep_results import mean_and_interval

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
MARKS = ("o", "s", "^", "D", "v", "P")
LOSS = "loss (nats per scored token)"


def panels(rows: int, columns: int, width: float = 4.2, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure of so many charts, row by row; sizes in inches of each."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """With NaN for what is unknown."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def band(axes: Axes, x: Sequence[float], each: Sequence[Sequence[float | None]], label: str, **look) -> None:
    """Mean over seeds with its 95 % interval as a band.

    Args:
        each: one sequence of values for each seed; where one of them is unknown, nothing is drawn.
    """
    stacked = np.stack([numbers(values) for values in each])
    known = np.isfinite(stacked).all(axis=0)
    if not known.any():
        return
    means, intervals = zip(*(mean_and_interval(column.tolist()) for column in stacked[:, known].T), strict=True)
    at = np.asarray(x)[known]
    (line,) = axes.plot(at, means, label=label, **look)
    if all(intervals):
        low, high = np.array(intervals).T
        axes.fill_between(at, low, high, color=line.get_color(), alpha=0.18, lw=0)


def points(axes: Axes, x: Sequence[float], found: Sequence[Mapping], each: Sequence[Sequence[float | None]], **look):
    """Means joined by a line with their intervals as bars, and each run as a dot.

    Args:
        found: of each place, a summary with `mean` and `interval`; one without a mean is left out.
        each: of each place, the single runs' values.
    """
    known = [(at, one) for at, one in zip(x, found, strict=True) if one["mean"] is not None]
    (line,) = axes.plot([at for at, _ in known], [one["mean"] for _, one in known], **look)
    for at, one in known:
        if one["interval"]:
            axes.plot([at, at], one["interval"], color=line.get_color(), alpha=0.5, linewidth=2.2)
    for at, values in zip(x, each, strict=True):
        there = [value for value in values if value is not None]
        axes.plot([at] * len(there), there, ".", color=line.get_color(), alpha=0.45, markersize=5)


def finish(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Title, names of the axes with their units, a light grid."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
