"""The figure of `interpret.compare`, and the numbers behind it.

Of ours here `interpret.compare`, `compare_weights` and `figures`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interpret.compare import Comparison
from interpret.compare_weights import Changes
from interpret.figures import label

BARS = 20  # of weight changes: more could not be read
ROWS = 24  # names along the side of a panel
LABELS = 48  # more tokens than that cannot be told apart along an axis


def draw(found: Comparison, changes: Changes | None, names: tuple[str, str]) -> Figure:
    """Four panels: heads, matrices, the lens, and what each token costs."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    figure.suptitle(f"{label_of(names[0])}  and  {label_of(names[1])}", fontsize=11)
    (heads, matrices), (lens, losses) = figure.subplots(2, 2)
    if found.heads is None:
        say(heads, found.missing["heads"])
    else:
        image = heads.imshow(found.heads, cmap="Blues", vmin=0, vmax=found.heads.max() or 1, aspect="auto")
        figure.colorbar(image, ax=heads, label="Jensen-Shannon divergence (0 to 1)")
        name_rows(heads, list(map(str, found.layers)))
        heads.xaxis.set_major_locator(MaxNLocator(integer=True))
        heads.set(xlabel="head", ylabel="layer", title="attention")
    draw_changes(matrices, changes)
    if found.lens is None:
        say(lens, found.missing["lens"])
    else:
        image = lens.imshow(found.lens, cmap="Blues", vmin=0, vmax=found.lens.max() or 1, aspect="auto")
        figure.colorbar(image, ax=lens, label="KL(first ‖ second), nats")
        name_rows(lens, found.rows)
        lens.set(title="what each layer would say next")
        name_tokens(lens, found.tokens.units)
    for name, values in zip(names, found.losses, strict=True):
        losses.plot(values, marker=".", label=label_of(name))
    losses.set(ylabel="nats", title="what each token costs")
    losses.legend()
    name_tokens(losses, found.tokens.units)
    return figure


def draw_changes(axis: Axes, changes: Changes | None) -> None:
    """The largest changes, as bars."""
    if changes is None:
        say(axis, "the models have no matrix of the same name and shape")
        return
    largest = sorted(changes.matrices, key=lambda one: -one.relative)[:BARS][::-1]
    axis.barh([one.name for one in largest], [100 * one.relative for one in largest])
    axis.tick_params(axis="y", labelsize=8)
    axis.set(xlabel="spectral norm of the change, % of the first model's matrix", title="weights")


def say(axis: Axes, words: str) -> None:
    """A sentence in the place of a panel."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, words, ha="center", va="center", wrap=True, fontsize=9, transform=axis.transAxes)


def name_rows(axis: Axes, names: list[str]) -> None:
    """Every row's name, or every second or third where they would touch."""
    step = -(-len(names) // ROWS)
    axis.set_yticks(range(0, len(names), step), names[::step], fontsize=8)


def name_tokens(axis: Axes, units: list[str]) -> None:
    if len(units) <= LABELS:
        axis.set_xticks(range(len(units)), [label(unit) for unit in units], rotation=90, fontsize=8)
    else:
        axis.set_xlabel(f"token (0 to {len(units) - 1})")


def label_of(name: str) -> str:
    """A model's name as matplotlib may print it: dollar signs begin a formula there."""
    return name.replace("$", r"\$")


def numbers_of(found: Comparison, changes: Changes | None) -> dict[str, np.ndarray]:
    """Everything that the figure shows, and all matrices where it shows the largest."""
    numbers = {
        "units": np.array(found.tokens.units),
        "ids_first": np.array(found.tokens.first.ids),
        "ids_second": np.array(found.tokens.second.ids),
        "losses": found.losses,
    }
    if found.heads is not None:
        numbers |= {"divergence": found.heads, "layers": np.array(found.layers)}
    if found.lens is not None:
        numbers |= {"lens_kl": found.lens, "lens_rows": np.array(found.rows)}
    if changes is not None:
        numbers |= {
            "matrices": np.array([one.name for one in changes.matrices]),
            "norms": np.array([one.norm for one in changes.matrices]),
            "changes": np.array([one.change for one in changes.matrices]),
        }
    return numbers
