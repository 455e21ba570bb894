"""How a training is drawn: what a recipe will cost, what is wrong with it, how a run stands, who waits for whom.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

from collections.abc import Iterable, Mapping, Sequence

from page.html import Markup, badge, code, escape, facts, note, progress, table
from page.runs import count, figure

UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))
LONGEST = 100 * 365 * 86_400  # seconds; nobody waits longer


def sentences(problems: Iterable[str], kind: str = "error") -> Markup:
    """What is wrong, a line for each; nothing where nothing is."""
    return Markup("".join(note(problem, kind) for problem in problems))


def cost(estimate) -> Markup:
    """The figures of a run to be, each with how it was got.

    Args:
        estimate: as `training.estimate.Estimate`.
    """
    how = estimate.how
    rows = [
        ("parameters", _with(f"{estimate.parameters:,}", f"{estimate.non_embedding:,} outside the embeddings")),
        ("vocabulary", _with(f"{estimate.vocabulary:,} entries", how["vocabulary"])),
        ("steps", estimate.steps and _with(f"{estimate.steps:,}", how["steps"])),
        ("epochs", estimate.epochs and figure(estimate.epochs)),
        ("tokens", estimate.tokens and count(estimate.tokens)),
        ("computation", estimate.flops and f"{estimate.flops:.2e} floating-point operations"),
        (
            "time",
            _with("not known yet" if estimate.seconds is None else f"about {duration(estimate.seconds)}", how["time"]),
        ),
        ("memory", _memory(estimate)),
    ]
    warned = note(estimate.warning, "warning") if estimate.warning else ""
    return Markup(facts(rows) + warned + gpus(estimate.on_gpus))


def gpus(runs: Sequence) -> Markup:
    """What the same run would take on well-known GPUs.

    Args:
        runs: as `training.gpus.OnGPU`.
    """
    if not runs:
        return Markup()
    rows = [
        (
            Markup(f'<a href="{escape(one.gpu.source)}" target="_blank" rel="noreferrer">{escape(one.gpu.name)}</a>'),
            gigabytes(int(one.gpu.memory)),
            "fits" if one.fits else "too large",
            *(brief(seconds) + (f" ({kind})" if kind == "fp16" else "") for kind, seconds in one.seconds.items()),
        )
        for one in runs
    ]
    drawn = table(("GPU", "memory", "", "fp32", "bf16"), rows)
    words = (
        "By calculation: arithmetic alone, at 35 % of the peak that the maker states. "
        "A small model takes longer, as starting its kernels does."
    )
    return Markup(
        f'<details class="lab-train-gpus"><summary>On other GPUs</summary>'
        f'<p class="lab-train-hint">{words}</p>{drawn}</details>'
    )


def checks(done: Sequence[Mapping[str, object]], pending: Sequence[str] = ()) -> Markup:
    """Checks before a run: those that were done, with what was seen, and the names of those that were not."""
    rows = [_check(one["status"], one["name"], one) for one in done]
    rows += [_check("not done", name, None) for name in pending]
    hint = (
        '<p class="lab-train-hint">Check does the rest in about ten seconds; Start does them too.</p>'
        if pending
        else ""
    )
    return Markup(f'<ul class="lab-check">{"".join(rows)}</ul>{hint}')


def _check(status: str, name: str, one: Mapping[str, object] | None) -> str:
    words = "" if one is None else f"{one['seen']} (expected: {one['expected']})"
    advice = f"<br>{escape(one['advice'])}" if one and one["advice"] else ""
    kind = status.replace(" ", "-")
    return (
        f'<li class="lab-check-{escape(kind)}"><b>{escape(name)}</b> <span>{escape(status)}</span>'
        f"<small>{escape(words)}{advice}</small></li>"
    )


def recipe_texts(recipe: str, command: str) -> Markup:
    """The recipe as it will be run, and the command that does the same."""
    words = '<p class="lab-train-hint">In a terminal, this does the same:</p>'
    whole = '<p class="lab-train-hint">The whole recipe, what was left out filled in:</p>'
    return Markup(f"{words}{code(command)}{whole}{code(recipe)}")


def differences(changed: Mapping[str, tuple[object, object]], old: str, new: str) -> Markup:
    """Where two recipes differ, by dotted names."""
    if not changed:
        return note(f"{new} is the same as {old}")
    rows = [
        (name, *("left out" if value is None else figure(value) for value in pair)) for name, pair in changed.items()
    ]
    return table(("", old, new), rows)


def standing(
    run_id: str, status: str, record: Mapping, waits: str | None = None, remedy: str = "", command: str = ""
) -> Markup:
    """How a run stands: its status, what it does or waits for, how far it is, and what to do where it ended early.

    Args:
        record: its run.json.
        remedy: a sentence; with the command that does it in a terminal.
    """
    at = record["progress"]
    phase = at.get("phase") if status == "running" else None
    parts = [
        f'<h2 class="lab-train-title">{escape(run_id)} {badge(status)}'
        f"{f' <small>{escape(phase)}</small>' if phase else ''}</h2>"
    ]
    if at.get("steps"):
        parts.append(progress((at.get("step") or 0) / at["steps"], _progress_words(at, status)))
    if waits:
        parts.append(note(waits))
    if status == "failed" and record.get("error"):
        parts.append(note(record["error"], "error"))
    if remedy:
        parts.append(
            note(remedy, "warning" if status == "interrupted" else "info") + (code(command) if command else "")
        )
    return Markup("".join(parts))


def queue(rows: Sequence[tuple[str, str, str, str]]) -> Markup:
    """The live runs: (id, status, how far, what it waits for); choosing one is the event `open`."""
    if not rows:
        return Markup('<p class="lab-train-hint">Nothing is training.</p>')
    drawn = [(_opener(run_id), badge(status), steps, waits) for run_id, status, steps, waits in rows]
    return table(("run", "status", "step", "waits for"), drawn)


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 seconds, 12 minutes, 3.5 hours, 12 days."""
    if seconds >= LONGEST:
        return "more than a hundred years"
    if seconds < 90:
        return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
    length, unit = next((length, unit) for length, unit in UNITS if seconds >= 1.5 * length)
    number = seconds / length
    return f"{number:.1f} {unit}s" if number < 10 and length > 60 else f"{number:,.0f} {unit}s"


def brief(seconds: float) -> str:
    """A duration where below a second matters too."""
    return duration(seconds) if seconds >= 1 else "under a second"


def gigabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.3g} GB"


def _progress_words(at: Mapping, status: str) -> str:
    words = [f"step {at.get('step') or 0:,} of {at['steps']:,}"]
    if status == "running" and at.get("tokens_per_second"):
        words.append(f"{at['tokens_per_second']:,.0f} tokens/s")
    if status == "running" and at.get("eta_seconds"):
        words.append(f"about {duration(at['eta_seconds'])} left")
    return " · ".join(words)


def _memory(estimate) -> Markup:
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in estimate.memory.items())
    free = f"{gigabytes(estimate.memory_free)} are free on {estimate.device}"
    unknown = "" if "activations" in estimate.memory else "; its activations cannot be counted beforehand"
    return _with(f"about {gigabytes(estimate.memory_total)}, uncompiled", f"{parts}{unknown}; {free}")


def _with(value: str, how: str) -> Markup:
    return Markup(f'{escape(value)} <small class="lab-train-how">{escape(how)}</small>')


def _opener(run_id: str) -> Markup:
    name = escape(run_id)
    return Markup(f'<button type="button" class="lab-train-open" data-act="open" data-run="{name}">{name}</button>')
