"""How corpora on the Hub are drawn: what an entry is, and the fetches that are not finished.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

import shlex
from collections.abc import Mapping, Sequence

from page.corpora import size, terminal
from page.html import Markup, escape, facts, note, progress

ENDED = {"failed": "stopped by an error", "interrupted": "interrupted; what was fetched is kept"}


def entry(row: Mapping, config: str | None, cap: int | None, commands: Sequence[str]) -> Markup:
    """A corpus of the table that is not here yet.

    Args:
        row: of the list of corpora.
        cap: bytes that are fetched where nothing else is asked for; None: all.
    """
    published = row["published"]
    told = facts(
        [
            ("dataset", row["hub"]),
            ("configuration", config),
            ("published, about", f"{published['documents']:,} documents, {size(published['bytes'])} of text"),
            ("fetched at most", "all of it" if cap is None else size(cap)),
        ]
    )
    words = "On the Hugging Face Hub, and not fetched yet. A training that names it fetches it, too."
    return Markup(f"{note(words)}{told}{terminal(commands)}")


def fetches(rows: Sequence[Mapping], where: str) -> Markup:
    """Those that are not finished, one below another. Buttons are the events `stop`, `go_on` and `discard`.

    Args:
        where: the flag that names the workspace, for a command to be typed.
    """
    if not rows:
        return Markup("")
    shown = "".join(one_fetch(row, where) for row in rows)
    return Markup(f'<h3 class="lab-data-h">Fetches</h3><div class="lab-fetch-list">{shown}</div>')


def one_fetch(row: Mapping, where: str) -> Markup:
    source = " ".join(filter(None, (row["dataset"], row["config"])))
    live = row["status"] in ("running", "starting")
    acts = [("stop", "Stop")] if live else [("go_on", "Go on"), ("discard", "Remove")]
    buttons = "".join(
        f'<button type="button" class="lab-fetch-button" data-act="{act}" data-id="{escape(row["id"])}">{word}</button>'
        for act, word in acts
    )
    command = "" if live else terminal([f"python -m data.corpora {shlex.join(row['command'])}{where}"])
    return Markup(
        f'<article class="lab-fetch"><div class="lab-fetch-head"><h4>{escape(row["name"])}</h4>'
        f"<span>{escape(source)}</span><span>{buttons}</span></div>"
        f"{state(row)}{command}</article>"
    )


def state(row: Mapping) -> Markup:
    """How far it is, or why it ended."""
    if row["status"] == "failed":
        return note(row["error"] or ENDED["failed"], "error")
    got = ""
    if row["documents"] is not None:
        got = f"{row['split']}: {row['documents']:,} documents, {size(row['bytes'])}"
    if row["status"] == "interrupted":
        return note(". ".join(filter(None, (got, ENDED["interrupted"]))), "warning")
    left = "" if row["eta_seconds"] is None else f"{duration(row['eta_seconds'])} left"
    words = ", ".join(filter(None, (got or f"{row['phase']} …", left)))
    return progress(row["share"] or 0.0, words)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
