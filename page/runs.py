"""How runs are drawn: the list, one run's card, checkpoints, samples and logs, and several side by side.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from page.chart import sparkline
from page.html import Markup, badge, code, escape, note, progress, table

COLUMNS = ("run", "status", "kind", "trained on", "parameters", "validation loss", "excess", "loss curve", "made")
AXES = {"step": "optimizer step", "tokens": "tokens seen", "seconds": "seconds of training"}
AXIS_CHOICES = [("steps", "step"), ("tokens", "tokens"), ("time", "seconds")]  # what a curve may be drawn against
LOSS = "loss (nats per token)"
UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def run_list(rows: Iterable, curves: Mapping[str, Sequence[float]], more: int) -> Markup:
    """A line for each run; choosing one is the event `open`, its tick box is for comparing.

    Args:
        rows: as `hub.overview.Row`.
        curves: the training loss of each run by its id.
        more: how many runs are not shown.
    """
    head = "".join(f"<th>{name}</th>" for name in ('<span class="lab-models-said">compare</span>', *COLUMNS))
    body = "".join(_line(row, curves.get(row.id, ())) for row in rows)
    rest = f'<button type="button" class="lab-models-more" data-act="more">show more ({more:,} left)</button>'
    return Markup(
        f'<div class="lab-models-rows"><table class="lab-table lab-models"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{rest if more > 0 else ''}"
    )


def heading(row) -> Markup:
    """Name, id and status of an opened run, how far it is, and what is wrong with it."""
    name = f"{escape(row.name)} <small>{escape(row.id)}</small> {badge(row.status)}"
    parts = [f'<h2 class="lab-models-title">{name}</h2>']
    if row.note:
        parts.append(f'<p class="lab-models-note">{escape(row.note)}</p>')
    if row.steps and row.status != "completed":
        step = row.step or 0
        parts.append(progress(step / row.steps, f"step {step:,} of {row.steps:,}"))
    if row.problem:
        parts.append(note(row.problem, "error"))
    return Markup("".join(parts))


def commands(python: str, resume: str | None) -> Markup:
    """How to load a run's model, and how to go on with the run, each to be copied."""
    parts = (("Load it in Python", python), ("Go on training, in a terminal", resume))
    return Markup("".join(f'<h3 class="lab-models-h">{what}</h3>{code(text)}' for what, text in parts if text))


def checkpoint_table(kept: Sequence, run_id: str) -> Markup:
    """A run's checkpoints.

    Args:
        kept: as `hub.details.Kept`.
    """
    if not kept:
        return note("no complete checkpoint yet: the first comes at the step that the recipe's train.save_every names")
    head = ("called", "may be resumed", "step", "validation loss", "training loss", "on disk")
    body = [
        (
            _revision(run_id, one),
            "yes" if one.resumable else "no: its optimizer state was let go, its weights stay",
            f"{one.step:,}",
            figure(one.val_loss),
            figure(one.train_loss),
            size(one.size),
        )
        for one in kept
    ]
    return table(head, body, "Type a checkpoint's name wherever a model is asked for.", numbers=4)


def samples(texts: Sequence[Mapping]) -> Markup:
    """Sampled texts, each with its step and settings."""
    if not texts:
        return note("nothing sampled yet: texts come at the steps that the recipe's train.sample_every names")
    return Markup("".join(_sample(one) for one in texts))


def logs(ends: Mapping[str, str]) -> Markup:
    """The last lines of each log, by its name."""
    if not any(ends.values()):
        return note("nothing logged yet")
    shown = (
        f'<h3 class="lab-models-h">{escape(name)}</h3><pre class="lab-log" tabindex="0">{escape(text)}</pre>'
        for name, text in ends.items()
        if text
    )
    return Markup("".join(shown))


def comparison(names: Sequence[str], parts: Mapping[str, Mapping[str, Sequence]]) -> Markup:
    """Tables of what several runs' values are: a line a name, a column a run.

    Args:
        parts: by caption, the values of each name, one for each run.
    """
    drawn = []
    for caption, values in parts.items():
        body = [(name, *map(figure, row)) for name, row in values.items()]
        drawn.append(table(("", *names), body, caption) if body else note(f"{caption}: no difference"))
    return Markup(f'<div class="lab-models-compared">{"".join(drawn)}</div>')


def side_by_side(title: str, texts: Mapping[str, str]) -> Markup:
    """Texts beside one another, each under its name."""
    shown = (
        f'<div><h4>{escape(name)}</h4><div class="lab-sample">{escape(text.strip())}</div></div>'
        for name, text in texts.items()
    )
    return Markup(f'<h3 class="lab-models-h">{escape(title)}</h3><div class="lab-models-texts">{"".join(shown)}</div>')


def link(run_id: str, words: str) -> Markup:
    """Words that open a run."""
    return Markup(
        f'<button type="button" class="lab-models-link" data-act="open" data-run="{escape(run_id)}">'
        f"{escape(words)}</button>"
    )


def moment(stamp: str | None, now: datetime | None = None) -> Markup:
    """When it was, in words; the exact time for those who hover over them."""
    if not stamp:
        return Markup("–")
    exact = datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return Markup(f'<time datetime="{escape(stamp)}" title="{escape(exact)}">{ago(stamp, now)}</time>')


def ago(stamp: str, now: datetime | None = None) -> str:
    """How long ago an ISO time was; the date where it is weeks."""
    then = datetime.fromisoformat(stamp)
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    for unit, length, until in (("minute", 60, 3600), ("hour", 3600, 86_400), ("day", 86_400, 14 * 86_400)):
        if seconds < until:
            count = int(seconds // length)
            return "just now" if count < 1 else f"{count} {unit}{'s' if count > 1 else ''} ago"
    return then.astimezone().strftime("%Y-%m-%d")


def figure(value: object) -> str:
    """A value as a person reads it: four digits of a fraction, thousands apart, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " to ".join(map(figure, value)) if len(value) == 2 else ", ".join(map(figure, value))
    return str(value)


def count(value: int | None) -> str:
    """A number of parameters or tokens, short: 918k, 1.2M, 7.6B."""
    if value is None:
        return "–"
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return str(value)


def size(count: int) -> str:
    """Bytes as people say them."""
    unit, words = next(((unit, words) for unit, words in UNITS if count >= unit), (1, "bytes"))
    return f"{count / unit:.3g} {words}"


def _line(row, curve: Sequence[float]) -> str:
    run_id, name = escape(row.id), escape(row.name)
    told = f"training loss from {figure(curve[0])} to {figure(curve[-1])}" if len(curve) > 1 else ""
    steps = f"<small>{row.step or 0:,} / {row.steps:,}</small>" if row.steps and row.status != "completed" else ""
    problem = f'<small class="lab-models-bad">{escape(row.problem)}</small>' if row.problem else ""
    remark = f'<small class="lab-models-note">{escape(row.note)}</small>' if row.note else ""
    base = f"<small>on {escape(row.base)}</small>" if row.base and row.kind == "finetune" else ""
    trained = f"<small>{count(row.trained)} trained</small>" if row.trained else ""
    cells = (
        f'<button type="button" class="lab-models-name" data-key="{run_id}">{name}</button>'
        f"<small>{run_id}</small>{remark}{problem}",
        f"{badge(row.status)}{steps}",
        f"{escape(row.kind or '–')}{base}",
        escape(row.corpus or row.examples or "–"),
        f"{count(row.parameters)}{trained}",
        figure(row.val_loss),
        figure(row.excess),
        sparkline(curve, told),
        moment(row.created_at),
    )
    shown = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in zip(COLUMNS, cells, strict=True))
    return (
        f'<tr data-act="open" data-run="{run_id}"><td class="lab-models-tick"><label><input type="checkbox" '
        f'data-tick="{run_id}" data-key="tick {run_id}" aria-label="compare {run_id}"></label></td>{shown}</tr>'
    )


def _revision(run_id: str, one) -> Markup:
    marks = "".join(f' <span class="lab-badge">{escape(name)}</span>' for name in one.also)
    return Markup(f"<code>{escape(run_id)}@{escape(one.revision)}</code>{marks}")


def _sample(one: Mapping) -> str:
    apart = ("step", "text", "prompt", "reference")
    settings = ", ".join(f"{name} {figure(value)}" for name, value in one.items() if name not in apart)
    head = f"step {figure(one.get('step'))}{f' · {settings}' if settings else ''}"
    text = escape(str(one.get("text", "")).strip())
    return (
        f'<h3 class="lab-models-h">{escape(head)}</h3>{_asked(one)}<div class="lab-sample">{text}</div>{_wanted(one)}'
    )


def _asked(one: Mapping) -> str:
    """The prompt of an answer."""
    text = escape(str(one.get("prompt") or "").strip())
    return f'<div class="lab-sample lab-tune-asked">{text}</div>' if text else ""


def _wanted(one: Mapping) -> str:
    """The answer that stands in the data, folded away."""
    text = escape(str(one.get("reference") or "").strip())
    if not text:
        return ""
    title = "<summary>the answer in the data</summary>"
    return f'<details class="lab-tune-wanted">{title}<div class="lab-sample">{text}</div></details>'
