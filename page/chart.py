"""Charts as HTML text: lines, bars and sparklines that fit any width, follow the theme and answer the pointer.

Uses numpy, and matplotlib only to choose ticks. A plot is an SVG stretched to its box, its lines keeping their width;
every word stands in HTML around it, so that it is as legible on a phone as on a wall. `page.js` shows values on hover.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from page.html import Markup, escape

COLOURS = 8  # `--lab-c0` to `--lab-c7` of the style sheet; a ninth line begins again
POINTS = 600  # more than that are more than a screen can show
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
SIZE = 1000.0  # of the plot's own coordinates; the box it is stretched to has any size


@dataclass
class Series:
    """One line of a chart.

    Args:
        x, y: equally long; a y that is None or not finite is a gap.
        style: `line`, `faint` (noise behind another line), `dots` (joined by a dashed line) or `level` (dotted).
        colour: index of the colour, by default its place in the chart; lines that belong together share one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "line"
    colour: int | None = None
    points: np.ndarray = field(init=False, repr=False)
    """(N, 2) float64, NaN where there is a gap, no more than POINTS or so."""

    def __post_init__(self):
        x, y = np.array(self.x, dtype=float), np.array(self.y, dtype=float)  # None becomes NaN
        y[~np.isfinite(y)] = np.nan
        self.points = np.column_stack(thin(x, y, POINTS))


def line_chart(
    series: Sequence[Series], x: str, y: str, log_y: bool = False, title: str = "", height: int = 260
) -> Markup:
    """Lines over common axes, with ticks, units and a legend.

    Args:
        x, y: what the axes show, with its unit.
        log_y: a logarithmic scale, where all values are above 0.
        height: of the plot, in CSS pixels.
    """
    drawn = [one for one in series if np.isfinite(one.points[:, 1]).any()]
    if not drawn:
        return Markup(f'<figure class="lab-chart lab-empty">{_caption(title)}<p>nothing measured yet</p></figure>')
    colours = [index if one.colour is None else one.colour for index, one in enumerate(drawn)]
    every_x = np.concatenate([one.points[:, 0] for one in drawn])
    every_y = np.concatenate([one.points[:, 1] for one in drawn])
    across, up = Axis.around(every_x, tight=True), Axis.around(every_y, log=log_y)
    lines = "".join(_line(one, colour, across, up) for one, colour in zip(drawn, colours, strict=True))
    shown = [
        {
            "name": one.name,
            "colour": colour % COLOURS,
            "points": _rounded(one.points),
            "level": one.style == "level",  # the same everywhere
        }
        for one, colour in zip(drawn, colours, strict=True)
        if one.style != "faint"
    ]
    data = {"x": x, "low": across.low, "high": across.high, "series": shown}
    legend = "".join(
        f'<li><i class="lab-key {one.style} c{colour % COLOURS}"></i>{escape(one.name)}</li>'
        for one, colour in zip(drawn, colours, strict=True)
        if one.style != "faint"
    )
    return _figure(lines, across, up, x, y, title, f'<ul class="lab-legend">{legend}</ul>', height, json.dumps(data))


def bar_chart(
    edges: Sequence[float], counts: Sequence[float], x: str, y: str, title: str = "", height: int = 160
) -> Markup:
    """A histogram: `counts[i]` things between `edges[i]` and `edges[i + 1]`; its axis begins at 0."""
    if not len(counts) or not np.any(counts):
        return Markup(f'<figure class="lab-chart lab-empty">{_caption(title)}<p>nothing to count</p></figure>')
    across = Axis.around(np.array(edges, dtype=float), tight=True)
    up = Axis.around(np.array([0.0, *counts], dtype=float))
    bars = []
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        x0, x1, top = across.at(left), across.at(right), SIZE - up.at(count)
        words = f"{_label(left)} to {_label(right)}: {_label(count)}"
        bars.append(
            f'<rect x="{x0:.1f}" y="{top:.1f}" width="{max(x1 - x0 - 2, 1):.1f}" height="{SIZE - top:.1f}">'
            f"<title>{escape(words)}</title></rect>"
        )
    return _figure(f'<g class="lab-bars">{"".join(bars)}</g>', across, up, x, y, title, "", height)


def sparkline(y: Sequence[float | None], words: str = "") -> Markup:
    """A line without axes, for a row of a table; `words` say what it shows to who cannot see it."""
    values = np.array(y, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Markup('<span class="lab-spark"></span>')
    across, up = Axis(0, len(values) - 1), Axis(values.min(), max(values.max(), values.min() + 1e-9))
    path = _path(np.column_stack([np.arange(len(values)), values]), across, up)
    return Markup(
        f'<svg class="lab-spark" viewBox="0 0 {SIZE:g} {SIZE:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}"><path d="{path}"/></svg>'
    )


def thin(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `points` of them, the lowest and the highest of each stretch kept, so that no spike is lost.

    A stretch that holds a gap keeps one point of it.
    """
    if len(x) <= points:
        return x, y
    bounds = np.linspace(0, len(x), points // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for begin, end in pairwise(bounds):
        part = y[begin:end]
        finite = np.isfinite(part)
        if finite.any():
            kept |= {begin + int(np.nanargmin(part)), begin + int(np.nanargmax(part))}
        if not finite.all():
            kept.add(begin + int(np.argmin(finite)))
    chosen = np.array(sorted(kept))
    return x[chosen], y[chosen]


@dataclass(frozen=True)
class Axis:
    """From values to the plot's coordinates."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: np.ndarray, log: bool = False, tight: bool = False) -> "Axis":
        """An axis that holds all finite values: exactly where `tight`, else from tick to tick."""
        values = values[np.isfinite(values)]
        low, high = float(values.min()), float(values.max())
        if log and low > 0:
            return cls(low / 1.05, high * 1.05, True)
        if low == high:
            margin = abs(low) * 0.1 or 1.0
            low, high = low - margin, high + margin
        if not tight:
            ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
            low, high = float(ticks[0]), float(ticks[-1])
        return cls(low, high)

    def at(self, value):
        """0 at the low end, SIZE at the high one; a number or an array."""
        if self.log:
            return SIZE * (np.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return SIZE * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        if self.log:
            locator = LogLocator(subs=(1.0, 2.0, 5.0), numticks=12)
        found = [float(tick) for tick in locator.tick_values(self.low, self.high)]
        inside = [tick for tick in found if self.low <= tick * (1 + 1e-12) and tick <= self.high * (1 + 1e-12)]
        return inside if len(inside) > 1 else [self.low, self.high]

    def labels(self) -> list[tuple[float, str]]:
        """Each tick with its words; one unit for all of a linear axis."""
        ticks = self.ticks()
        unit = 1.0 if self.log else max((u for u, _ in UNITS if max(map(abs, ticks)) >= 10 * u), default=1.0)
        return [(tick, _label(tick, unit)) for tick in ticks]


def _line(one: Series, colour: int, across: Axis, up: Axis) -> str:
    css = f"{one.style} c{colour % COLOURS}"
    path = _path(one.points, across, up)
    dots = ""
    if one.style == "dots" or len(one.points) == 1:  # a line of length 0 with a round end is a dot, however stretched
        at = one.points[np.isfinite(one.points[:, 1])]
        places = zip(across.at(at[:, 0]), SIZE - up.at(at[:, 1]), strict=True)
        dots = f'<path class="lab-dots {css}" d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)}"/>'
    return f'<path class="lab-line {css}" d="{path}"/>{dots}'


def _path(points: np.ndarray, across: Axis, up: Axis) -> str:
    xs, ys = across.at(points[:, 0]), SIZE - up.at(points[:, 1])
    parts, pen_up = [], True
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if y != y:  # a gap
            pen_up = True
            continue
        parts.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = False
    return "".join(parts)


def _figure(
    content: str, across: Axis, up: Axis, x: str, y: str, title: str, legend: str, height: int, data: str = ""
) -> Markup:
    grid = "".join(f'<path class="lab-grid" d="M0 {SIZE - up.at(tick):.1f}H{SIZE:g}"/>' for tick in up.ticks())
    left = "".join(f'<span style="bottom:{up.at(tick) / SIZE:.2%}">{words}</span>' for tick, words in up.labels())
    below = "".join(
        f'<span style="left:{across.at(tick) / SIZE:.2%}">{words}</span>' for tick, words in across.labels()
    )
    hover = f' data-chart="{escape(data)}" tabindex="0"' if data else ""
    return Markup(
        f'<figure class="lab-chart">{_caption(title)}<div class="lab-y-name">{escape(y)}</div>'
        f'<div class="lab-y" style="height:{height}px">{left}</div>'
        f'<div class="lab-plot" style="height:{height}px"{hover} role="img" '
        f'aria-label="{escape(f"{title or y} against {x}")}">'
        f'<svg viewBox="0 0 {SIZE:g} {SIZE:g}" preserveAspectRatio="none" aria-hidden="true">{grid}{content}</svg>'
        f"</div>"
        f'<div class="lab-x">{below}</div><div class="lab-x-name">{escape(x)}</div>{legend}</figure>'
    )


def _caption(title: str) -> str:
    return f"<figcaption>{escape(title)}</figcaption>" if title else ""


def _rounded(points: np.ndarray) -> list:
    """Points for the browser: five digits are more than a person reads."""
    return [[_short(x), None if y != y else _short(y)] for x, y in points.tolist()]


def _short(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.5g}")


def _label(value: float, unit: float = 1.0) -> str:
    """A number as a person writes it: 0.02, 1.5, 2,400, 20k, 2e-6; in thousands or millions where `unit` says so."""
    if abs(value) < 1e-12:
        return "0"
    if unit > 1:
        return f"{value / unit:.4g}{dict(UNITS)[unit]}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("e-0", "e-")
