"""The figures of `finetune.forgetting`, from its results alone: suites over steps, forgetting against gain, heads."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from finetune.experiment_figures import COLOURS, MARKS, band, finish, numbers, panels

ACROSS = 3  # charts side by side


def figures(found: dict) -> dict[str, tuple[Figure, str]]:
    """Name to (figure, caption); nothing where nothing could be compared."""
    if not found["lines"]:
        return {}
    drawn = {"suites": suites(found["lines"]), "gain": gain(found["lines"])}
    attention = found["attention"]
    return drawn | ({"attention": heads(attention)} if attention and "missing" not in attention else {})


def suites(lines: list[dict]) -> tuple[Figure, str]:
    """Each suite over the steps, a line a setting."""
    names = list(lines[0]["courses"])
    figure, axes = panels(-(-len(names) // ACROSS), ACROSS, height=3.1)
    for place, name in zip(axes, names, strict=False):
        exact = lines[0]["suites"][name]["kind"] == "exact"
        for line, colour, mark in zip(lines, COLOURS, MARKS, strict=False):
            courses = [[100 * value for value in one] if exact else one for one in line["courses"][name]]
            band(place, line["steps"], courses, line["label"], color=colour, marker=mark, markersize=4)
        finish(place, name, "optimizer step", "right answers (%)" if exact else "loss of plain text (nats per token)")
        if exact:
            place.set_ylim(-4, 104)
    for place in axes[len(names) :]:
        place.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    places = {"loc": "center"} if len(axes) > len(names) else {"loc": "best"}
    (axes[-1] if len(axes) > len(names) else axes[0]).legend(handles, labels, fontsize=9, frameon=False, **places)
    caption = "Each suite before (step 0), during and after: mean and 95 % interval over seeds."
    return figure, caption


def gain(lines: list[dict]) -> tuple[Figure, str]:
    """Forgetting against gain: a dot a run, a cross of intervals a setting."""
    figure, (axes,) = panels(1, 1, width=6.4, height=4.4)
    for line, colour, mark in zip(lines, COLOURS, MARKS, strict=False):
        across, up = numbers(line["gained"]), 100 * numbers(line["forgotten"])
        axes.plot(across, up, mark, color=colour, alpha=0.4, markersize=4)
        cross(axes, line, colour, mark)
    axes.axhline(0, color="0.6", linewidth=0.8)
    finish(axes, "", "gain: fall of the new task's loss (nats per scored token)", "forgotten (percentage points)")
    axes.legend(fontsize=8, frameon=False)
    caption = (
        "What is forgotten, mean over the suites of questions, against what is gained: means with 95 % intervals "
        "(bars), single runs (small). Below and to the right is better."
    )
    return figure, caption


def cross(axes: Axes, line: dict, colour: str, mark: str) -> None:
    gained, forgotten = line["gained_summary"], line["forgotten_summary"]
    x, y = gained["mean"], 100 * forgotten["mean"]
    axes.plot([x], [y], mark, color=colour, markersize=9, label=line["label"])
    if gained["interval"]:
        axes.plot(gained["interval"], [y, y], color=colour, alpha=0.6)
        axes.plot([x, x], [100 * end for end in forgotten["interval"]], color=colour, alpha=0.6)


def heads(attention: dict) -> tuple[Figure, str]:
    """Where the plain setting's first run looks elsewhere than its base."""
    figure, axes = panels(1, 2, width=4.6, height=3.2)
    top = max(np.max(attention["old"]), np.max(attention["new"])) or 1.0
    for place, name, title in zip(axes, ("old", "new"), ("on the suites' questions", "on the new task"), strict=True):
        values = np.array(attention[name])
        image = place.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        for (row, column), value in np.ndenumerate(values) if values.size <= 64 else ():
            colour = "white" if value > 0.6 * top else "black"
            place.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        place.set_yticks(range(len(attention["layers"])), [str(layer) for layer in attention["layers"]])
        place.set_xticks(range(values.shape[1]))
        finish(place, title, "head", "layer")
        place.grid(False)
    figure.colorbar(image, ax=axes, label="Jensen-Shannon divergence (0 to 1)")
    caption = (
        "Base against fine-tuned attention (the plain setting, first seed): Jensen-Shannon divergence of each head, "
        "mean over texts and tokens."
    )
    return figure, caption
