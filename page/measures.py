"""How a run's diagnostics are drawn: a chart for every measure, layers as lines, and in words what is healthy.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from page.chart import Series, line_chart
from page.html import Markup, escape, note

LINES = 8  # of one chart: more layers than that cannot be told apart by their colours
DEEPEST, OWN = 6, 7  # the colours of the last layer, the first one's being 0, and of the run's own figure
NOTHING = "nothing measured yet: diagnostics come at the steps that train.diagnose_every names in the recipe"


def diagnostics(items: Iterable, across: str) -> Markup:
    """A chart for each measure that was recorded.

    Args:
        items: as `hub.measured.Recorded`.
        across: what the charts are drawn against, with its unit.
    """
    charts = "".join(chart(one, across) for one in items)
    return Markup(f'<div class="lab-charts lab-measures">{charts}</div>') if charts else note(NOTHING)


def chart(one, across: str) -> Markup:
    """One measure: the run's own figure, its layers from light to dark, the guide line, and the words."""
    measure, shown = one.measure, chosen(one.layers)
    ramp = np.linspace(0, DEEPEST, len(shown)).round().astype(int).tolist()
    lines = [Series(name, *one.layers[name], colour=colour) for name, colour in zip(shown, ramp, strict=True)]
    lines += [Series("each step", *one.noise, "faint", OWN), Series("the run", *one.whole, colour=OWN)]
    if measure.guide is not None:
        reach = np.concatenate([line.points[:, 0] for line in lines])
        ends = [reach.min(), reach.max()]
        lines.append(Series(f"guide {measure.guide:g}", ends, [measure.guide] * 2, "level", OWN))
    drawn = line_chart(lines, across, measure.unit, measure.log, measure.title, height=150)
    return Markup(f'<section class="lab-measure">{drawn}{words(one, len(shown))}</section>')


def words(one, shown: int) -> Markup:
    """What the number is, where that is defined, and what to expect of it."""
    measure, told = one.measure, [one.measure.about]
    if measure.by == "matrix" and one.layers:
        told.append("Of a layer, the median of its parts.")
    if shown < len(one.layers):
        told.append(f"{shown} of {len(one.layers)} layers are drawn, the lowest and the highest among them.")
    if measure.source:
        told.append(f"({measure.source})")
    healthy = f"<p><strong>Healthy:</strong> {escape(measure.healthy)}</p>" if measure.healthy else ""
    return Markup(f"<p>{escape(' '.join(told))}</p>{healthy}")


def chosen(layers: Mapping) -> list[str]:
    """All layers where they are few; else the first, the last, those now lowest and highest, and some between."""
    names = list(layers)
    if len(names) <= LINES:
        return names
    newest = [layers[name][1][-1] for name in names]
    kept = {0, len(names) - 1, int(np.argmin(newest)), int(np.argmax(newest))}
    for place in np.linspace(0, len(names) - 1, LINES).round().astype(int).tolist():
        if len(kept) < LINES:
            kept.add(place)
    return [names[place] for place in sorted(kept)]
