"""Figures of the lens: a table of guesses, layer by token, and how far each layer is from the model's own answer.

Of ours here `interpret.lens` and `figures`. The last layer is at the top, as what the model says stands at its end.
"""

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from interpret.figures import label
from interpret.lens import Lens

COLOURS = {  # what a cell's colour can be: in words, and its unit
    "probability": ("probability of the best guess", "probability"),
    "kl": ("KL from the model's own distribution", "nats"),
    "rank": ("one over the rank of the token that comes", "1 / rank"),
}
WORDS = 40  # tokens beside each other above which no word fits into a cell
LABELS = 64  # … and above which none fits along the axis


def shades(lens: Lens, colour: str) -> np.ndarray:
    """The numbers (R, T) that the colours stand for; NaN where there is none."""
    if colour not in COLOURS:
        raise ValueError(f"a lens is coloured by {', '.join(COLOURS)}, not by {colour!r}")
    return {"probability": lens.probabilities[..., 0], "kl": lens.kl, "rank": 1 / lens.rank}[colour]


def draw(lens: Lens, colour: str = "probability") -> Figure:
    """The best guess in every cell; beneath each column the token that was read."""
    values, (R, T) = shades(lens, colour), lens.kl.shape
    words = T <= WORDS
    width = max(7, min(26, 2.2 + T * (0.62 if words else 0.18)))
    figure = Figure(figsize=(width, 1.9 + 0.3 * R), layout="constrained")
    axis = figure.subplots()
    top = 1 if colour != "kl" else float(values.max(initial=1e-9))
    scale = Normalize(0, top)
    image = axis.imshow(values, cmap="Blues", norm=scale, aspect="auto", origin="lower")
    for row, column in np.ndindex(R, T) if words else ():
        guess = lens.guesses[row, column, 0]
        axis.text(
            column, row, word(lens.spellings[guess]), ha="center", va="center", fontsize=6, clip_on=True,
            color="white" if scale(values[row, column]) > 0.6 else "black",
        )  # fmt: skip
        if column + 1 < T and guess == lens.ids[column + 1]:  # right, as the next token is
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="tab:orange"))
    axis.set_yticks(range(R), lens.rows, fontsize=8)
    if T <= LABELS:
        axis.set_xticks(range(T), [word(token) for token in lens.tokens], rotation=90, fontsize=8)
    meaning, unit = COLOURS[colour]
    framed = ", framed where it is right" if words else ""
    axis.set_xlabel("token read")
    axis.set_title(f"{'tuned' if lens.tuned else 'logit'} lens: the next token{framed}; colour: {meaning}", fontsize=9)
    figure.colorbar(image, label=unit)
    return figure


def word(token: str) -> str:
    """A token in a cell of a figure: what has no sign of its own by its number, as a bad guess may be anything."""
    return label("".join(c if c.isprintable() or c in " \n\t" else f"\\x{ord(c):02x}" for c in token))


def plain(token: str) -> str:
    """The same in a cell of a page, where a dollar sign is one."""
    return word(token).replace(r"\$", "$")


def numbers_of(lens: Lens) -> dict[str, np.ndarray]:
    """Everything behind the figure; `spellings` are of the token ids in `spelled`."""
    arrays = ("guesses", "probabilities", "true_probability", "rank", "kl", "entropy", "tokens", "ids", "rows")
    return {name: np.asarray(getattr(lens, name)) for name in arrays} | {
        "spelled": np.array(list(lens.spellings)),
        "spellings": np.array(list(lens.spellings.values())),
    }


def draw_held_out(rows: list[str], logit: list[float], tuned: list[float]) -> Figure:
    """KL of both lenses by layer on held-out text."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, values in (("logit lens", logit), ("tuned lens", tuned)):
        axis.plot(values, marker="o", markersize=3, label=name)
    axis.set_xticks(range(len(rows)), rows, rotation=90, fontsize=8)
    axis.set(ylabel="KL from the model, nats per token", ylim=(0, None), title="Held-out text")
    axis.legend()
    return figure
