"""How findings are drawn: what is wrong with a run, how that was seen, and what to do.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

from collections.abc import Sequence

from page.html import Markup, code, escape, facts, note, table

ALL_WELL = "Nothing found so far: none of the rules sees anything wrong in what was measured."


def findings(found: Sequence, run_id: str, can_change: bool = False) -> Markup:
    """A box for each finding, the gravest first.

    Args:
        found: as `hub.findings.Finding`.
        can_change: with a button that starts the change; its event is `change`, with the run and the finding's name.
    """
    if not found:
        return note(ALL_WELL, "good")
    return Markup("".join(_box(one, run_id, can_change and one.change is not None) for one in found))


def _box(one, run_id: str, button: bool) -> Markup:
    said = facts([("seen", one.seen), ("threshold", one.threshold), ("what to do", one.advice)])
    evidence = table(
        ("measured", "at step", "value"),
        [(what, "" if step is None else f"{step:,}", _number(value)) for what, step, value in one.evidence],
        numbers=2,
    )
    why = f"<p>{escape(one.source)}</p>" if one.source else ""
    more = f"<details><summary>Evidence and reason</summary>{evidence}{why}</details>"
    return Markup(
        f'<section class="lab-finding lab-{escape(one.severity)}"><h4><span>{escape(one.severity)}</span> '
        f"{escape(one.title)}</h4>{said}{more}{code(one.command) if one.command else ''}"
        f"{_button(one, run_id) if button else ''}</section>"
    )


def _button(one, run_id: str) -> Markup:
    words = "Fork with this change" if one.fork else "Begin anew with this change"
    return Markup(
        f'<button type="button" class="lab-finding-change" data-act="change" data-run="{escape(run_id)}" '
        f'data-finding="{escape(one.name)}">{words}</button>'
    )


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"
