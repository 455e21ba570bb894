"""Small pieces of a page as HTML text: facts, tables, badges, notes. Standard library only.

Every function escapes what it is given, so that a run's name or a token can hold anything; `Markup` is HTML already.
"""

from collections.abc import Iterable, Sequence
from html import escape as _escape

STATUSES = {  # what a status means, for those who hover over it
    "queued": "waiting for its turn",
    "running": "training now",
    "paused": "its process waits",
    "stopping": "saving before it ends",
    "completed": "trained to the end",
    "failed": "ended by an error",
    "interrupted": "stopped before its end; it can be resumed",
}


class Markup(str):
    """HTML that is safe to insert as it is."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """The value as HTML text; what is HTML already stays."""
    return value if isinstance(value, Markup) else Markup(_escape(str(value)))


def badge(status: str) -> Markup:
    """A run's status as a small coloured word."""
    meaning = STATUSES.get(status, "")
    return Markup(f'<span class="lab-badge lab-{_escape(status)}" title="{_escape(meaning)}">{_escape(status)}</span>')


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Names and values, two columns; rows without a value are left out."""
    shown = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows if value not in (None, ""))
    return Markup(f'<dl class="lab-facts">{"".join(shown)}</dl>')


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "", numbers: int = 0) -> Markup:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        numbers: how many of the last columns hold figures and stand to the right.
    """
    first_number = len(head) - numbers

    def row(cells: Sequence[object], tag: str) -> str:
        kinds = (' class="number"' if i >= first_number else "" for i in range(len(cells)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return Markup(
        f'<div class="lab-scroll"><table class="lab-table">{title}<thead><tr>{row(head, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def note(text: object, kind: str = "info") -> Markup:
    """A sentence in a box. `kind`: `info`, `good`, `warning` or `error`; an error is read out by screen readers."""
    role = ' role="alert"' if kind == "error" else ""
    return Markup(f'<p class="lab-note lab-{_escape(kind)}"{role}>{escape(text)}</p>')


def code(text: str) -> Markup:
    """A command or a few lines of a program, with a button that copies them."""
    return Markup(
        f'<div class="lab-code"><pre><code>{_escape(text)}</code></pre>'
        '<button type="button" class="lab-copy" aria-label="copy">copy</button></div>'
    )


def progress(share: float, words: str) -> Markup:
    """A bar, `share` of it filled, and what it means."""
    percent = 100 * min(max(share, 0.0), 1.0)
    return Markup(
        f'<div class="lab-progress"><div role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-label="{_escape(words)}"><span style="width:{percent:.2f}%"></span></div>'
        f"<p>{_escape(words)}</p></div>"
    )


# For `gr.HTML(js_on_load=...)`: a click, or Enter, on anything with a `data-act` reaches Python as the event `act`,
# all its `data-` attributes with it (`event.act`, `event.run` …).
CLICKS = """
element.addEventListener("click", (event) => {
  const source = event.target.closest("[data-act]");
  if (source && element.contains(source)) trigger("act", { ...source.dataset });
});
"""
