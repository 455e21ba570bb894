"""The catalogue's measures as one run recorded them: the run's own figure of each, and that of every layer.

Uses numpy; of ours only `hub.measures` and `hub.live`. Fast enough for a page that looks often: what is measured now
and then is read only at the rows where it was.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from hub.live import SMOOTH, Live, smooth, thin
from hub.measures import MEASURES, Measure

LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")  # the first number in a module's name is its layer's
HEADS = {"mean": fmean, "max": max}

OFTEN = 4 * SMOOTH  # values from which on a curve is smoothed: fewer are seen one by one

Curve = tuple[np.ndarray, np.ndarray]
"""(N,) what it is drawn against, (N,) finite values."""
NO_CURVE: Curve = (np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Recorded:
    """One measure of one run.

    Attributes:
        whole: the run's own figure, smoothed where it was recorded often; empty where only its parts were recorded.
        noise: what it was smoothed from; empty where it was not.
        layers: by `layer 0`, `layer 1` …, then what belongs to no layer, such as `embed_tokens`, each a curve. Of a
            measure by matrix it is the median over the layer's parts.
    """

    measure: Measure
    whole: Curve
    noise: Curve
    layers: dict[str, Curve]


def recorded(live: Live, x: str = "step", points: int | None = None) -> list[Recorded]:
    """What the run recorded of the catalogue, in its order.

    Args:
        x: what curves are against: `step`, `tokens` or `seconds`.
        points: of a curve at most, its lowest and highest kept, and thrice as many of its noise; None: all.
    """
    across = live.across(x)
    most = len(across) if points is None else points
    parts, found = defaultdict(dict), []
    for column in live.columns:
        name, slash, part = column.partition("/")
        if slash and name in MEASURES:
            parts[name][part] = live.columns[column]
    for name, measure in MEASURES.items():
        values = live.numbers(name)
        known = np.isfinite(across) & np.isfinite(values)
        raw = averaged(across[known], values[known], measure.window)
        noisy = measure.window == 1 and len(raw[0]) > OFTEN
        whole, noise = (smooth(*raw), raw) if noisy else (raw, NO_CURVE)
        layers = {layer: thin(*curve, most) for layer, curve in by_layer(parts[name], measure, across).items()}
        if known.any() or layers:
            found.append(Recorded(measure, thin(*whole, most), thin(*noise, 3 * most), layers))
    return found


def averaged(x: np.ndarray, y: np.ndarray, window: int) -> Curve:
    """The mean of the last `window` values at each place; of all there are before so many have come."""
    if window == 1:
        return x, y
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - window, 0)
    return x, (sums[ends] - sums[starts]) / (ends - starts)


def by_layer(columns: dict[str, Sequence], measure: Measure, across: np.ndarray) -> dict[str, Curve]:
    """A curve for each layer, from the columns of its parts.

    Args:
        columns: by module name; values are numbers, None, or lists of one number for each head.
        across: (N,) what the curves are drawn against.
    """
    if not columns:
        return {}
    rows = rows_with_values(list(columns.values()))
    groups = defaultdict(list)
    for part, column in columns.items():
        groups[layer_of(part)].append(figures([column[row] for row in rows], measure.heads))
    curves = {}
    for key in sorted(groups):
        values = np.array(groups[key])  # (parts of the layer, rows)
        known = np.isfinite(values).any(0) & np.isfinite(across[rows])
        values = values[:, known]
        if known.any():
            median = np.median if np.isfinite(values).all() else np.nanmedian  # which is ten times slower
            curves[key[1]] = across[rows][known], median(values, axis=0)
    return curves


def rows_with_values(columns: Sequence[Sequence]) -> list[int]:
    """Where any of the columns has a value, ascending. Parts are nearly always measured at the same rows."""
    rows: list[int] = []
    for column in columns:
        there = len(column) - column.count(None)  # far quicker than to look at each value
        if there != sum(column[row] is not None for row in rows):
            rows = sorted({*rows, *(row for row, value in enumerate(column) if value is not None)})
    return rows


def figures(values: Sequence[float | list | None], heads: str) -> np.ndarray:
    """One number for each value of a part, NaN where there is none; of a list that of its finite ones."""
    if list not in map(type, values):
        return np.array(values, dtype=float)  # None becomes NaN
    numbers = []
    for value in values:
        several = value if isinstance(value, list) else [value]
        there = [one for one in several if one is not None and math.isfinite(one)]
        numbers.append(HEADS[heads](there) if there else math.nan)
    return np.array(numbers)


def layer_of(part: str) -> tuple[int, str]:
    """What sorts and what names the layer of a module: by number, then what is in no layer."""
    if match := LAYER.search(part):
        return int(match[1]), f"layer {match[1]}"
    return 1 << 30, part.removesuffix(".weight").rpartition(".")[2]
