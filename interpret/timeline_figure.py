"""A timeline as a figure: a small picture for each thing measured, all over the same steps, and the loss beneath.

Of ours here `interpret.timeline`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret.timeline import Timeline
from interpret.timeline_measure import BY_HEAD, BY_LEVEL, SINGLE

NAMED = 6  # lines of one picture that have a name: more could not be told apart
REST = "#b8bec6"  # the others
LOSSES = ("loss_first", "loss_second", "loss_second_without")


def draw(timeline: Timeline) -> Figure:
    """Two pictures a row, the loss over the whole width at the foot."""
    small = [name for name in (*BY_HEAD, *BY_LEVEL) if name in timeline.values]
    copies = "loss_second" in timeline.values
    rows = -(-(len(small) + copies) // 2)
    figure = Figure(figsize=(10, 2.1 * rows + 2.6), layout="constrained")
    grid = figure.add_gridspec(rows + 1, 2, height_ratios=[*[1] * rows, 1.2])
    foot = figure.add_subplot(grid[rows, :])
    places = [figure.add_subplot(grid[i // 2, i % 2], sharex=foot) for i in range(len(small) + copies)]
    for axes, name in zip(places, small, strict=False):
        draw_lines(axes, timeline, name)
    if copies:
        for name in LOSSES:
            if name in timeline.values:
                places[-1].plot(timeline.steps, timeline.values[name], label=SINGLE[name][0])
        finish(places[-1], "loss on random tokens, repeated once", "nats per token")
    for name, (steps, losses) in timeline.curve.items():
        foot.plot(steps, losses, label=name, lw=0.6 if name == "training" else 1.8)
    finish(foot, f"loss of {timeline.run}", "nats per token")
    foot.set_xlabel("step")
    return figure


def draw_lines(axes: Axes, timeline: Timeline, name: str) -> None:
    """One line a head or a level; those that go furthest have a name."""
    title, unit = (BY_HEAD | BY_LEVEL)[name]
    lines = lines_of(timeline, name)
    for _, _, values in lines[NAMED:]:
        axes.plot(timeline.steps, values, color=REST, lw=0.8, zorder=1)
    for number, label, values in lines[:NAMED]:
        axes.plot(timeline.steps, values, color=f"C{number % 10}", label=label, lw=1.4)
    if name in BY_HEAD:
        axes.set_ylim(-0.02, 1.02)
    finish(axes, title, unit)


def lines_of(timeline: Timeline, name: str) -> list[tuple[int, str, np.ndarray]]:
    """(number, name, values over the points) of every head or level; heads with those first that change the most.

    The number is that of the head or level in the model: it has one colour in all pictures.
    """
    values = timeline.values[name]
    flat = values.reshape(len(values), -1)  # (S, lines)
    if name in BY_LEVEL:
        names = ["before the layers", *(f"after layer {layer}" for layer in timeline.layers)]
        return [(i, names[i], flat[:, i]) for i in range(flat.shape[1])]
    heads = values.shape[2]
    order = np.argsort(-np.ptp(flat, axis=0), kind="stable")
    return [(int(i), f"L{timeline.layers[i // heads]}H{i % heads}", flat[:, i]) for i in order]


def finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def numbers_of(timeline: Timeline) -> dict[str, np.ndarray]:
    """What the figure shows, for `numpy.load`."""
    curve = {
        f"curve_{name}": np.array([steps, losses], dtype=float) for name, (steps, losses) in timeline.curve.items()
    }
    return {"steps": np.array(timeline.steps), "layers": np.array(timeline.layers), **timeline.values, **curve}
