"""How the residual stream is drawn: norms, shares of a logit, similarities, and the values of a site.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself. Arguments are
as `interpret.residual` and `interpret.attribution` make them; place l of the stream is what enters layer l, and the
last place leaves the last layer.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from page.bars import bars
from page.chart import Series, bar_chart, line_chart
from page.heatmap import heatmap
from page.html import Markup, facts, note, table

SHOWN = 64  # tokens along a map of layers
SQUARE = 40  # tokens along both sides of a map: more are taller than a screen
STANDS_OUT = 2.0  # times its layer's median: the deepest colour of a norm
HEIGHT = 200  # of a chart, in CSS pixels


def overview(stream) -> Markup:
    """How long the stream is, what each part adds, and which tokens stand out; a cell chooses a layer and a token.

    Args:
        stream: as `interpret.residual.Stream`.
    """
    norms, places = stream.norms, range(stream.layers + 1)
    lengths = [
        Series("stream that enters, median over tokens", places, np.median(norms, axis=1)),
        Series("stream of the first token", places, norms[:, 0], "dots", 0),
        *(
            Series(f"{part} adds, median", places[:-1], np.median(added, axis=1), colour=i)
            for i, (part, added) in enumerate(stream.added.items(), start=1)
        ),
    ]
    cosines = [
        Series(part, places[:-1], values.mean(1), colour=i)
        for i, (part, values) in enumerate(stream.cosines.items(), start=1)
    ]
    charts = (
        line_chart(lengths, "layer", "norm", log_y=True, title="Norms", height=HEIGHT),
        line_chart(cosines, "layer", "mean cosine", title="What is added, against the stream", height=HEIGHT),
        line_chart(
            [Series("different tokens", places, stream.alike, colour=3)], "layer", "mean cosine",
            title="How alike the tokens are", height=HEIGHT,
        ),
    )  # fmt: skip
    L = stream.layers
    said = f"{len(stream.tokens)} tokens, {L} layers. At layer {L} stands what leaves the last layer."
    return Markup(
        note(" ".join(filter(None, [said, stream.note])))
        + f'<div class="lab-charts lab-residual-charts">{"".join(charts)}</div>{_standing_out(stream)}'
    )


def _standing_out(stream) -> Markup:
    """A map of each token's norm against the median of its layer."""
    norms = stream.norms
    relative = norms / np.maximum(np.median(norms, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    count = min(SHOWN, len(stream.tokens))

    def said(place: int, t: int) -> str:
        lengths = f"norm {norms[place, t]:.4g}, {relative[place, t]:.2f} × the median"
        return f"layer {place}, {stream.tokens[t]!r} ({t}): {lengths}"

    titles = [[said(place, t) for t in range(count)] for place in range(len(norms))]
    return heatmap(
        relative[:, :count], numbered(len(norms)), words(stream.tokens[:count]), "× the layer's median",
        f"Which tokens stand out: norms against their layer's median{_first(stream, SHOWN)}", STANDS_OUT,
        titles=titles, act="cell", corner="layer \\ token",
    )  # fmt: skip


def shares(found, together: Mapping[str, float]) -> Markup:
    """A logit as a sum, a bar a part; a click is the act `bar`, its `part` the part.

    Args:
        found: as `interpret.attribution.Attribution`.
        together: the shares to draw, some of them added up.
    """
    parts = [name for name in together if name in found.shares and name != "embedding"]
    drawn = bars(together, "of the logit", f"Shares of the {found.target}", "bar", parts)
    return Markup(drawn + _sum(found))


def shares_by_head(found, layers: int, heads: int) -> Markup:
    """The same as a map of layers by heads; a click is the act `head`, column 0 the feed-forward part."""
    rows, columns = range(layers), ["feed-forward", *numbered(heads)]
    names = [[f"L{layer}.mlp", *(f"L{layer}H{head}" for head in range(heads))] for layer in rows]
    grid = np.array([[found.shares[name] for name in row] for row in names])
    titles = [[f"{name}: {found.shares[name]:+.4f} of the logit" for name in row] for row in names]
    title = f"Shares of the {found.target}"
    drawn = heatmap(
        grid, numbered(layers), columns, "of the logit", title, titles=titles, act="head", corner="layer \\ head"
    )
    others = {name: value for name, value in found.shares.items() if name == "embedding" or name.endswith(".bias")}
    return Markup(drawn + bars(others, "of the logit") + _sum(found))


def _sum(found) -> Markup:
    rows = [
        ("bias of the final norm and the head", found.bias),
        ("rounding", found.rest),
        ("all together", found.logit),
    ]
    told = facts((name, f"{value:+.1e}" if name == "rounding" else f"{value:+.4f}") for name, value in rows)
    return Markup(told + (note(found.capped, "warning") if found.capped else ""))


def similarity(stream, place: int, position: int) -> Markup:
    """Cosines between tokens at one place, and between the places of one token."""
    between_tokens, between_layers = stream.between_tokens(place), stream.between_layers(position)
    count, shown = min(SQUARE, len(stream.tokens)), words(stream.tokens)
    tokens = heatmap(
        between_tokens[:count, :count], shown[:count], shown[:count], "(cosine)",
        f"Between tokens, where layer {place} begins{_first(stream, SQUARE)}", 1.0,
    )  # fmt: skip
    at = range(len(stream.tokens))[position]
    layers = numbered(stream.layers + 1)
    places = heatmap(
        between_layers, [f"layer {i}" for i in layers], layers, "(cosine)",
        f"Between the layers of {stream.tokens[at]!r} (position {at})", 1.0,
    )  # fmt: skip
    return Markup(f'<div class="lab-residual-pair">{tokens}{places}</div>')


def spread(values, about: str, span: str) -> Markup:
    """The histogram of a site's values, and their statistics by layer.

    Args:
        values: as `interpret.residual.Values`.
        about: what the site is.
        span: which of the values the histogram shows.
    """
    outside = f"value; {span}, {values.outside:,} lie outside"
    title = f"{values.site}: {about}"
    chart = bar_chart(values.edges, values.counts, outside, "how many", title)
    rows = [
        [
            name, f"{one.count:,}", f"{one.mean:.4g}", f"{one.std:.4g}", f"{one.kurtosis:.1f}",
            f"{one.largest:.4g}", ", ".join(map(str, one.at)), f"{one.near_zero:.1%}",
        ]
        for name, one in values.statistics.items()
    ]  # fmt: skip
    head = ["site", "values", "mean", "std", "kurtosis", "largest", "at", "near 0"]
    return Markup(chart + table(head, rows, numbers=7) + (note(values.note) if values.note else ""))


def words(tokens: Sequence[str]) -> list[str]:
    """Tokens as labels of a line: blanks and line ends as signs."""
    return [token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") for token in tokens]


def numbered(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _first(stream, shown: int) -> str:
    return f" (the first {shown} tokens)" if len(stream.tokens) > shown else ""
