"""How sweeps are drawn: the list, one sweep's standing, its points as marks with intervals, its verdict.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself. Results are
as in a sweep's results.json.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from page.chart import Axis
from page.html import Markup, badge, code, escape, note, progress, table
from page.training import duration

COLUMNS = ("sweep", "status", "runs", "metric", "verdict")
VERDICTS = {"confirmed": "good", "refuted": "warning", "undecided": "info"}
EXPLAINED = "Diamond and bar: mean and 95 % interval over the seeds. Dots: single runs."


def sweep_list(rows: Sequence[tuple[str, str, str, str, str]]) -> Markup:
    """(id, status, runs, metric, verdict) of each sweep; choosing one is the event `open`."""
    if not rows:
        return note("There are no sweeps yet. Write what is to be varied below, and start one.")
    return table(COLUMNS, [(_opener(sweep_id), badge(status), *others) for sweep_id, status, *others in rows])


def standing(record: Mapping, status: str, results: Mapping | None, command: str) -> Markup:
    """How one sweep stands, and what it asks.

    Args:
        record: its run.json.
        command: what goes on with it in a terminal, where it ended early; else empty.
    """
    at = record["progress"]
    parts = [f'<h2 class="lab-sweep-title">{escape(record["id"])} {badge(status)}</h2>']
    if results:
        parts.append(f'<p class="lab-sweep-question">{escape(results["question"])}</p>')
    if status in ("running", "stopping") and at.get("steps"):
        left = f"about {duration(at['eta_seconds'])} left" if at.get("eta_seconds") else ""
        words = [f"{at.get('step') or 0} of {at['steps']} runs", at.get("phase"), left]
        parts.append(progress((at.get("step") or 0) / at["steps"], " · ".join(filter(None, words))))
    if status == "failed" and record.get("error"):
        parts.append(note(record["error"], "error"))
    if command:
        again = "It can be started again, here or in a terminal; what is finished is not repeated."
        parts.append(note(again) + code(command))
    return Markup("".join(parts))


def verdict(found: Mapping | None) -> Markup:
    """What was expected beforehand and what came of it; nothing where nothing was expected."""
    return note(found["sentence"], VERDICTS[found["verdict"]]) if found else Markup()


def points_chart(results: Mapping, points: Sequence[Mapping]) -> Markup:
    """A row for each point: its mean, its interval, its runs.

    Args:
        points: those of the results, in the order in which they are to stand.
    """
    shown = [one for one in points if one["mean"] is not None]
    if not shown:
        return note("Nothing has been measured yet.")
    across = Axis.around(_every_number(shown))
    rows = "".join(_row(one, across) for one in shown)
    ticks = "".join(f'<span style="left:{across.at(tick) / 10:.2f}%">{words}</span>' for tick, words in across.labels())
    return Markup(
        f'<figure class="lab-sweep-chart">{rows}<div></div><div class="lab-sweep-ticks">{ticks}</div>'
        f"<div></div><figcaption>{escape(results['metric_in_words'])}; {escape(results['better'])} is better. "
        f"{EXPLAINED}</figcaption></figure>"
    )


def points_table(points: Sequence[Mapping]) -> Markup:
    """The same as figures; the runs can be opened."""
    rows = []
    for one in points:
        interval = one["interval"]
        runs = Markup(" ".join(_run(run) for run in one["runs"]))
        rows.append(
            (one["label"], runs, _figure(one["mean"]), "–" if interval is None else " to ".join(map(_figure, interval)))
        )
    return table(("point", "each seed", "mean", "95 % interval"), rows, numbers=2)


def _row(one: Mapping, across: Axis) -> str:
    """A label, and a strip in which places are shares of its width."""
    at = {run["run"]: across.at(run["value"]) / 10 for run in one["runs"] if run["value"] is not None}
    dots = "".join(f'<i class="dot" style="left:{place:.2f}%" title="{escape(run)}"></i>' for run, place in at.items())
    words, bar = f"{one['label']}: {_figure(one['mean'])}", ""
    if one["interval"]:
        low, high = (across.at(end) / 10 for end in one["interval"])
        bar = f'<i class="bar" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        words += f", 95 % interval {_figure(one['interval'][0])} to {_figure(one['interval'][1])}"
    return (
        f'<div class="lab-sweep-label">{escape(one["label"])}</div><div class="lab-sweep-strip" role="img" '
        f'aria-label="{escape(words)}" title="{escape(words)}">{dots}{bar}'
        f'<i class="mean" style="left:{across.at(one["mean"]) / 10:.2f}%"></i></div>'
    )


def _every_number(points: Sequence[Mapping]) -> np.ndarray:
    numbers = [number for one in points for number in (*(one["interval"] or ()), one["mean"])]
    return np.array(numbers + [run["value"] for one in points for run in one["runs"] if run["value"] is not None])


def _run(run: Mapping) -> str:
    """A run's figure, or its status where it has none; choosing it is the event `run`."""
    words = _figure(run["value"]) if run["value"] is not None else run["status"]
    if run["run"] is None:
        return f"<span>{escape(words)}</span>"
    hint = f"seed {run['seed']}: {run['run']}" + (f", {run['error']}" if run["error"] else "")
    return (
        f'<button type="button" class="lab-sweep-run" data-act="run" data-run="{escape(run["run"])}" '
        f'title="{escape(hint)}">{escape(words)}</button>'
    )


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def _opener(sweep_id: str) -> Markup:
    name = escape(sweep_id)
    return Markup(f'<button type="button" class="lab-sweep-open" data-act="open" data-sweep="{name}">{name}</button>')
