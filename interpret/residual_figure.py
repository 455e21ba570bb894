"""Everything that the residual view tells of one prompt, as one figure and as the numbers behind it.

May import `data`; of ours here `interpret.residual`, `attribution` and `figures`. The command and the page draw the
same.

Shapes: as in `interpret.residual`.
"""

from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interpret.attribution import Attribution, attribute
from interpret.figures import label
from interpret.prompt import MAX_TOKENS
from interpret.record import check_positions
from interpret.residual import Stream, Values, read_stream, read_values

LABELS = 48  # more tokens than that cannot be told apart along an axis of a panel
BARS = 24  # shares that are drawn one by one
SIGNED = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
COLOURS = {"attention": "tab:orange", "feed-forward": "tab:green"}


@dataclass(frozen=True)
class View:
    """`attribution` is None where a logit has no shares, and `refused` says why; `place` is of the similarities."""

    stream: Stream
    attribution: Attribution | None
    refused: str
    values: Values
    place: int
    position: int


def read_view(
    model, tokenizer, prompt: str, token: str = "", minus: str = "", position: int = -1, by_head: bool = False,
    layer: int | None = None, site: str = "resid_post", max_tokens: int = MAX_TOKENS,
) -> View:  # fmt: skip
    """All of it. That a logit has no shares is a mistake only where some were asked for by `token`, `minus`, `by_head`.

    Args:
        layer: where tokens are compared; the middle one by default.
    """
    stream = read_stream(model, tokenizer, prompt, max_tokens)
    position = int(check_positions([position], len(stream.ids)))
    place = stream.layers // 2 if layer is None else layer
    stream.between_tokens(place)  # there is such a layer
    attribution, refused = None, ""
    try:
        attribution = attribute(model, tokenizer, prompt, token, minus, position, by_head, max_tokens)
    except ValueError as error:
        if token or minus or by_head:
            raise
        refused = str(error)
    return View(stream, attribution, refused, read_values(model, tokenizer, prompt, site, max_tokens), place, position)


def largest(shares: dict[str, float], count: int) -> dict[str, float]:
    """The `count` shares that matter most, in their own order, and the sum of the others."""
    if len(shares) <= count:
        return shares
    kept = set(sorted(shares, key=lambda name: -abs(shares[name]))[: count - 1])
    others = {name: value for name, value in shares.items() if name not in kept}
    return {name: shares[name] for name in shares if name in kept} | {f"{len(others)} others": sum(others.values())}


def numbers(view: View) -> dict[str, np.ndarray]:
    """What the figure shows, by name."""
    stream, attribution, values = view.stream, view.attribution, view.values
    found = {
        "tokens": np.array(stream.tokens),
        "ids": np.array(stream.ids),
        "norms": stream.norms,
        "rms": stream.rms,
        **{f"{part} norms": norms for part, norms in stream.added.items()},
        **{f"{part} cosines": cosines for part, cosines in stream.cosines.items()},
        "alike": stream.alike,
        "place": np.array(view.place),
        "between tokens": stream.between_tokens(view.place),
        "position": np.array(view.position),
        "between layers": stream.between_layers(view.position),
        "site": np.array(values.site),
        "histogram edges": values.edges,
        "histogram counts": values.counts,
    }
    if attribution:
        found |= {
            "share names": np.array(list(attribution.shares)),
            "shares": np.array(list(attribution.shares.values())),
            "bias": np.array(attribution.bias),
            "logit": np.array(attribution.logit),
            "target": np.array(attribution.target),
        }
    return found


# ── the figure ──


def draw(view: View) -> Figure:
    figure = Figure(figsize=(20, 9.5), layout="constrained")
    panels = figure.subplots(2, 4)
    stream = view.stream
    _norms(panels[0, 0], stream)
    _cosines(panels[0, 1], stream)
    _shares(panels[0, 2], view)
    _histogram(panels[0, 3], view.values)
    image = panels[1, 0].imshow(
        np.maximum(stream.norms, np.finfo(np.float32).tiny), aspect="auto", cmap="viridis", norm=LogNorm()
    )
    panels[1, 0].set(title="norm of the stream", ylabel="enters layer (the last row leaves the model's layers)")
    _tokens(panels[1, 0], stream)
    figure.colorbar(image, ax=panels[1, 0])
    panels[1, 1].plot(stream.alike, marker="o", markersize=3)
    panels[1, 1].set(title="mean cosine between different tokens", xlabel="enters layer")
    for axis in (panels[0, 0], panels[0, 1], panels[1, 1]):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    image = panels[1, 2].imshow(stream.between_tokens(view.place), **SIGNED)
    panels[1, 2].set(title=f"cosines between tokens, where layer {view.place} begins", ylabel="token")
    _tokens(panels[1, 2], stream)
    panels[1, 3].imshow(stream.between_layers(view.position), **SIGNED)
    at = label(stream.tokens[view.position])
    panels[1, 3].set(title=f"cosines between layers, of {at} (position {view.position})", xlabel="layer")
    figure.colorbar(image, ax=panels[1, 2:])
    return figure


def _norms(axis: Axes, stream: Stream) -> None:
    norms = stream.norms
    places = range(len(norms))
    axis.plot(places, np.median(norms, axis=1), label="stream that enters (median over tokens)", color="tab:blue")
    low, high = np.quantile(norms, [0.1, 0.9], axis=1)
    axis.fill_between(places, low, high, alpha=0.2, color="tab:blue", label="10 % to 90 % of the tokens")
    axis.plot(places, norms[:, 0], ":", color="tab:blue", label="stream of the first token")
    for part, added in stream.added.items():
        axis.plot(np.median(added, axis=1), color=COLOURS[part], label=f"{part} adds (median)")
    axis.set(title="norms", xlabel="layer", yscale="log")
    axis.legend(fontsize=8)


def _cosines(axis: Axes, stream: Stream) -> None:
    for part, cosines in stream.cosines.items():
        axis.plot(cosines.mean(1), color=COLOURS[part], label=part)
        axis.fill_between(
            range(len(cosines)), *np.quantile(cosines, [0.1, 0.9], axis=1), color=COLOURS[part], alpha=0.2
        )
    axis.axhline(0, color="gray", linewidth=0.8)
    axis.set(title="cosine of what is added with the stream", xlabel="layer", ylim=(-1.05, 1.05))
    axis.legend(fontsize=8)


def _shares(axis: Axes, view: View) -> None:
    if view.attribution is None:
        axis.text(0.5, 0.5, fill(view.refused, 44), ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    one = view.attribution
    shares = largest({**one.shares, "bias": one.bias}, BARS)
    colours = ["tab:blue" if value >= 0 else "tab:red" for value in shares.values()]
    axis.barh(range(len(shares)), list(shares.values()), color=colours)
    axis.set_yticks(range(len(shares)), list(shares), fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="gray", linewidth=0.8)
    of = label(one.token) + (f" minus {label(one.minus)}" if one.minus is not None else "")
    axis.set(title=f"shares of the logit of {of}: {one.logit:.2f}", xlabel="logit")


def _histogram(axis: Axes, values: Values) -> None:
    axis.stairs(values.counts, values.edges, fill=True)
    axis.set(title=f"values of {values.site}", xlabel=f"value ({values.outside:,} lie outside)", ylabel="how many")


def _tokens(axis: Axes, stream: Stream) -> None:
    if len(stream.tokens) <= LABELS:
        axis.set_xticks(range(len(stream.tokens)), [label(token) for token in stream.tokens], rotation=90, fontsize=7)
