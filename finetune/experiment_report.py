"""An experiment's report as Markdown, and its figures as PNG: made from its results file, no number typed by hand.

May import `data`. The result stands first, in one sentence; what it does not show stands in each report.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from data.workspace import write_atomic

DPI = 130
INTERVALS = (
    "Means over seeds; intervals are 95 % intervals of the mean by Student's t over the seeds. Losses are in nats per "
    "scored token: only answers are scored."
)


def markdown(found: Mapping) -> str:
    """The whole report.

    Args:
        found: the results of an experiment whose runs are all at their end.
    """
    parts = [f"# {found['title']}", found["question"], f"**{found['conclusion']}**"]
    parts += [f"```\n{found['command']}\n```", setting_of(found), INTERVALS]
    parts += [block for one in found["tables"] for block in _table(one)]
    parts += [f"![{one['caption']}]({one['file']})\n\n{one['caption']}" for one in found["figures"]]
    parts += ["## What it does not show", "\n".join(f"* {sentence}" for sentence in found["limits"])]
    parts.append("All figures above are made from [results.json](results.json), which has each run's id and curves.")
    return "\n\n".join(parts) + "\n"


def setting_of(found: Mapping) -> str:
    """What was run, in words: base, data, recipe, machine, versions."""
    origin, train, model = found["origin"], found["parts"]["train"], found["parts"]["model"]
    base, examples, machine = origin["base"] or {}, origin["examples"] or {}, origin["machine"]
    name = "@".join(filter(None, (base.get("id"), base.get("revision"))))
    size = origin["model"]["parameters"] - origin["model"]["parameters_trainable"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    changed = [{key for part in one["parts"].values() for key in part} for one in found["settings"]]
    unsaid = UNSAID | set.intersection(*changed)  # what each setting has its own value of is not shared
    recipe = ", ".join(f"{key} {_word(value)}" for key, value in (model | train).items() if key not in unsaid)
    runs = f"{found['runs']}: {len(found['settings'])} settings × {len(found['seeds'])} seeds"
    return (
        f"**Base** {name} ({_hash(base)}, {size:,} parameters). "
        f"**Examples** {examples.get('name')} ({_hash(examples)}). **All settings share** {recipe}, but for what they "
        f"say themselves; the rest has the recipe's defaults. **Runs** {runs}. **Machine** {in_words(machine)}; "
        f"{versions}."
    )


UNSAID = {"checks", "sample_every", "diagnose_every", "base"}  # they change nothing that is measured


def in_words(machine: Mapping) -> str:
    """A run's machine as one says it."""
    gpus = ", ".join(machine.get("gpus") or []) or "no GPU"
    memory = machine.get("memory", 0) / 2**30
    return f"{machine.get('cpu')}, {machine.get('threads')} CPU threads, {gpus}, {memory:.0f} GiB"


def save_figures(folder: Path, figures: Mapping[str, tuple[Figure, str]]) -> list[dict]:
    """Each figure as a PNG in the folder; returns [{"file", "caption"}]."""
    for name, (figure, _) in figures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI)
        write_atomic(folder / f"{name}.png", content.getvalue())
    return [{"file": f"{name}.png", "caption": caption} for name, (_, caption) in figures.items()]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> dict:
    """A table as the results hold it: texts, to be read as they are."""
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "note": note}


def figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.000


def interval(found: Mapping, digits: int = 3) -> str:
    """`low to high` of a summary, a dash where one seed gives none."""
    ends = found["interval"]
    return "–" if ends is None else f"{figure(ends[0], digits)} to {figure(ends[1], digits)}"


def with_interval(found: Mapping, digits: int = 3) -> str:
    """`mean (low to high)`."""
    return figure(found["mean"], digits) + (f" ({interval(found, digits)})" if found["interval"] else "")


def _table(one: Mapping) -> list[str]:
    sides = ["--:" if all(map(_is_figure, column)) else "---" for column in zip(*one["rows"], strict=True)]
    lines = [_row(one["columns"]), _row(sides), *map(_row, one["rows"])]
    return list(filter(None, [f"## {one['title']}", "\n".join(lines), one["note"]]))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _is_figure(cell: str) -> bool:
    return cell[:1] in "-–" or cell[:1].isdigit()


def _hash(entry: Mapping) -> str:
    return f"SHA-256 {entry['sha256'][:12]}…" if entry.get("sha256") else "no hash"


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
