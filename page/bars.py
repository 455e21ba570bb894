"""Signed numbers by name as horizontal bars from a common zero, as HTML text. Standard library only.

A list, so that it reads without colours too; a bar that can be clicked is a button.
"""

from collections.abc import Collection, Mapping

from page.html import Markup, escape


def bars(
    values: Mapping[str, float], unit: str, title: str = "", act: str = "", clickable: Collection[str] = ()
) -> Markup:
    """One bar a name, to the right of zero for what is above it and to the left for what is below.

    Args:
        unit: what a value is, for what is said on hover.
        act: what a click on the name or the bar of one that is `clickable` reaches Python as, its name as `event.part`.
    """
    low, high = min([0.0, *values.values()]), max([0.0, *values.values()])
    span = high - low or 1.0
    rows = "".join(
        _row(name, value, low, span, unit, act if name in clickable else "") for name, value in values.items()
    )
    caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    return Markup(f'<figure class="lab-share">{caption}<ul style="--zero:{-low / span:.4f}">{rows}</ul></figure>')


def _row(name: str, value: float, low: float, span: float, unit: str, act: str) -> str:
    begin, width = (min(value, 0.0) - low) / span, abs(value) / span
    side = " below" if value < 0 else ""
    drawn = (
        f'<span class="lab-share-name">{escape(name)}</span><span class="lab-share-track">'
        f'<i class="lab-share-bar{side}" style="left:{begin:.2%};width:{width:.2%}"></i></span>'
        f'<span class="lab-share-value">{value:+.3f}</span>'
    )
    said = escape(f"{name}: {value:+.4g} {unit}")
    if not act:
        return f'<li><div title="{said}">{drawn}</div></li>'
    clicks = f'data-act="{escape(act)}" data-part="{escape(name)}"'
    return f'<li><button type="button" title="{said}" {clicks}>{drawn}</button></li>'
