"""The training curve: losses against steps, judged against the corpus's own entropy where it is known.

May import nothing of ours. Drawn without pyplot, so that threads and processes do not share a figure.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SMOOTH = 50  # a curve of many steps is drawn as a running mean over a fiftieth of it, the noise behind it
CURVE_SIZE = (7.0, 4.0)  # inches; at 110 dots an inch some 40 kB


def draw_curve(axes: Axes, columns: dict[str, list], floor: float | None = None, name: str = "") -> None:
    """Training and validation loss of one run on `axes`; call again for further runs, each with its `name`.

    Args:
        columns: as `hub.metrics.read_metrics` returns them.
        floor: entropy of the corpus in nats per token, a lower bound of the validation loss.
    """
    prefix = f"{name}: " if name else ""
    steps, losses = _measured(columns, "train_loss")
    (line,) = axes.plot(steps, losses, linewidth=1.4, label=f"{prefix}training")
    color = line.get_color()
    if len(steps) > 4 * SMOOTH:
        line.set(alpha=0.2, linewidth=0.8, label="_noise")  # an underscore keeps it out of the legend
        axes.plot(*_smooth(steps, losses), color=color, linewidth=1.4, label=f"{prefix}training")
    steps, losses = _measured(columns, "val_loss")
    if steps.size:
        axes.plot(steps, losses, color=color, marker="o", markersize=4, linestyle="--", label=f"{prefix}validation")
    if floor is not None:
        axes.axhline(
            floor, color="black", linewidth=1.0, linestyle=":", label=f"{prefix}the corpus's entropy ({floor:.3f})"
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def save_curve(path: Path, columns: dict[str, list], floor: float | None = None, title: str = "") -> None:
    """One run's curve as a small PNG."""
    figure = Figure(figsize=CURVE_SIZE, layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, columns, floor)
    axes.set_title(title)
    figure.savefig(path, dpi=110)


def _measured(columns: dict[str, list], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values where the column has a finite one."""
    values = columns.get(name, [])
    pairs = [
        (s, v) for s, v in zip(columns.get("step", []), values, strict=False) if v is not None and math.isfinite(v)
    ]
    steps, losses = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps), np.array(losses)


def _smooth(steps: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = max(len(steps) // SMOOTH, 1)
    means = np.convolve(losses, np.ones(width) / width, mode="valid")
    # the mean over a window stands at the window's middle
    return steps[width // 2 : width // 2 + len(means)], means
