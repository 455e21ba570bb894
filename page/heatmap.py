"""A heat map as HTML text: numbers by row and column, coloured, each with its value on hover. Uses numpy.

A table, so that it can be read without colours, by keyboard and by screen readers; it scrolls inside its box. The
colours are the style sheet's: one ink for values from 0 up, two for values on both sides of 0.
"""

from collections.abc import Sequence

import numpy as np

from page.html import Markup, escape

CELLS = 20_000  # more buttons than that are slow in a browser


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str,
    title: str = "",
    top: float | None = None,
    words: Sequence[Sequence[str]] | None = None,
    titles: Sequence[Sequence[str]] | None = None,
    act: str = "",
    corner: str = "",
) -> Markup:
    """Values (R, C) in as many rows and columns; what is not finite is left white.

    Args:
        rows, columns: their labels.
        unit: what a value is, for the legend and the cells' titles.
        top: the value of the deepest colour; the largest there is by default. Negative values take the other ink.
        words: what stands in each cell; nothing by default, and cells are small squares.
        titles: what each cell says on hover; its labels and value by default.
        act: makes each cell a button whose click reaches Python as `event.row` and `event.column` with this `act`.
        corner: what rows and columns are, such as "layer \\ token".

    Raises ValueError where there are more cells than a browser draws.
    """
    values = np.asarray(values, dtype=float)
    if values.size > CELLS:
        raise ValueError(f"{values.shape[0]} × {values.shape[1]} cells are more than the {CELLS:,} that can be drawn")
    assert values.shape == (len(rows), len(columns)), (values.shape, len(rows), len(columns))
    finite = values[np.isfinite(values)]
    deepest = float(top if top is not None else np.abs(finite).max(initial=0.0)) or 1.0
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in columns)
    body = []
    for r, name in enumerate(rows):
        cells = []
        for c, value in enumerate(values[r]):
            said = titles[r][c] if titles else f"{name}, {columns[c]}: {value:.4g} {unit}"
            cells.append(_cell(value, deepest, words[r][c] if words else "", said, act, r, c))
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    kind = "lab-heat-words" if words else "lab-heat-squares"
    caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    return Markup(
        f'<figure class="lab-heat {kind}">{caption}<div class="lab-scroll"><table><thead><tr><td>{escape(corner)}</td>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{_legend(deepest, finite, unit)}</figure>"
    )


def _cell(value: float, deepest: float, word: str, said: str, act: str, row: int, column: int) -> str:
    if not np.isfinite(value):
        return f'<td title="{escape(said)}">{escape(word)}</td>'
    share = min(abs(value) / deepest, 1.0)
    side = " below" if value < 0 else ""
    dark = " deep" if share > 0.6 else ""
    look = f'class="heat{side}{dark}" style="--v:{share:.3f}" title="{escape(said)}"'
    if not act:
        return f"<td {look}>{escape(word)}</td>"
    return (
        f'<td {look}><button type="button" data-act="{escape(act)}" data-row="{row}" data-column="{column}" '
        f'aria-label="{escape(said)}">{escape(word)}</button></td>'
    )


def _legend(deepest: float, finite: np.ndarray, unit: str) -> str:
    both = bool((finite < 0).any())
    bar = '<i class="lab-heat-bar both"></i>' if both else '<i class="lab-heat-bar"></i>'
    low = f"{-deepest:.3g}" if both else "0"
    return f'<p class="lab-heat-legend"><span>{low}</span>{bar}<span>{deepest:.3g} {escape(unit)}</span></p>'
