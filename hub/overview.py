"""The runs of a workspace as a page shows them: the list, searched and ordered, and several side by side.

May import `data`. Quick for hundreds of runs: a record is read again only when it changed. What is broken (a record
that cannot be read, no metrics, no checkpoints) is a row like any other and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from data.access import Access
from data.workspace import NAME, Workspace, read_json
from hub.live import newest_val_loss
from hub.recipes import leaves
from hub.registry import RESULTS
from hub.runs import Run, status_of

SORTS = {
    "newest first": ("created_at", True),
    "oldest first": ("created_at", False),
    "validation loss": ("val_loss", False),
    "excess over the floor": ("excess", False),
    "parameters": ("parameters", True),
    "name": ("name", False),
}
PROGRESS = ("step", "tokens", "tokens_per_second")  # what of a run's progress is a result
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Row:
    """One run in the list. What is not known is None.

    Attributes:
        examples: what a fine-tuned run was trained on, where others have their corpus.
        base: the model whose weights it began with or stands on, with its revision.
        trained: parameters that training changed, where those are not all.
    """

    id: str
    name: str
    kind: str | None = None
    status: str = UNREADABLE
    corpus: str | None = None
    parameters: int | None = None
    step: int | None = None
    steps: int | None = None
    val_loss: float | None = None
    excess: float | None = None
    created_at: str | None = None
    note: str | None = None
    problem: str | None = None
    """One sentence on what is wrong with it."""
    examples: str | None = None
    base: str | None = None
    trained: int | None = None


def records(workspace: Workspace) -> list[tuple[Path, dict | None]]:
    """Every run's folder with its run.json, None where that cannot be read; newest first, broken ones last.

    The records are shared: nobody changes them.
    """
    found = [(path.parent, record(path.parent)) for path in (workspace.root / "runs").glob("*/run.json")]
    shown = [(path, info) for path, info in found if not path.name.startswith(".")]
    return sorted(shown, key=lambda one: (one[1]["created_at"] if one[1] else "", one[0].name), reverse=True)


def record(run_path: Path) -> dict | None:
    """A run's run.json, read when it changed; None where it cannot be read or is none. Not to be changed."""
    path = run_path / "run.json"
    try:
        stat = path.stat()
        return _record(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def rows(workspace: Workspace) -> list[Row]:
    """All runs, newest first."""
    return [row(path, info) for path, info in records(workspace)]


def row(path: Path, info: dict | None) -> Row:
    """The line of one run, by its folder and its record; what is not of its kind counts as not known."""
    if info is None:
        why = "its run.json cannot be read" if path.exists() else "its folder is gone"
        return Row(path.name, path.name.rpartition("-")[0], problem=why)
    result, progress, status = info["result"], info["progress"], status_of(info)
    corpus, examples, base = (_mapping(info["inputs"].get(what)) for what in ("corpus", "examples", "base"))
    return Row(
        id=path.name,
        name=_text(info.get("name")) or path.name,
        kind=_text(info.get("kind")),
        status=status,
        corpus=_text(corpus.get("name")),
        examples=_text(examples.get("name")),
        base="@".join(filter(None, (_text(base.get("id")), _text(base.get("revision"))))) or None,
        parameters=_number(info["model"].get("parameters")),
        trained=_number(info["model"].get("parameters_trainable")),
        step=_number(progress.get("step")),
        steps=_number(progress.get("steps")),
        val_loss=_number(newest_val_loss(path) if result.get("val_loss") is None else result["val_loss"]),
        excess=_number(result.get("excess")),
        created_at=info["created_at"],
        note=_text(info.get("note")),
        problem=_problem(path, info, status),
    )


def select(
    every: Sequence[Row], search: str = "", status: str = "", kind: str = "", corpus: str = "", sort: str = ""
) -> list[Row]:
    """The rows that hold every word of `search` and are of that status, kind and corpus; an empty one lets all pass.

    Raises ValueError for an order that there is none of.
    """
    if sort and sort not in SORTS:
        raise ValueError(f"there is no order {sort!r}: choose one of {', '.join(SORTS)}")
    words = (search or "").casefold().split()
    wanted = {"status": status, "kind": kind, "corpus": corpus}
    chosen = [
        row
        for row in every
        if all(not value or getattr(row, name) == value for name, value in wanted.items())
        and all(word in _searched(row) for word in words)
    ]
    name, downwards = SORTS[sort or next(iter(SORTS))]
    known = [row for row in chosen if getattr(row, name) is not None]
    known.sort(key=lambda row: _sorted_by(getattr(row, name)), reverse=downwards)
    return known + [row for row in chosen if getattr(row, name) is None]


def find(access: Access, ref: str) -> Run:
    """The run that somebody at the page named. Raises ValueError where there is none."""
    ref = access.reference(ref)
    path = access.workspace.root / "runs" / ref
    whole = NAME.fullmatch(ref) and (path / "run.json").is_file()  # an id, as nearly always: no need to look at others
    run = Run(path) if whole else Run.open(access.workspace, ref)
    access.path(str(run.path))  # a link inside the workspace may lead out of it
    return run


def compare(runs: Sequence[Run]) -> dict[str, dict[str, list]]:
    """Where the recipes and origins of several runs differ, and their results: name to values, one for each run."""
    infos = [record(run.path) for run in runs]
    if None in infos:
        raise ValueError(f"{runs[infos.index(None)].id} cannot be compared: its run.json cannot be read")
    origins = [
        {"seed": info.get("seed"), "code": (info.get("code_sha") or "")[:12], **info["versions"]} for info in infos
    ]
    reached = [{name: info["progress"].get(name) for name in PROGRESS} for info in infos]
    results = [info["model"] | far | info["result"] for info, far in zip(infos, reached, strict=True)]
    named = [{RESULTS.get(name, name.replace("_", " ")): value for name, value in one.items()} for one in results]
    measured = _side_by_side(named).items()
    return {
        "recipe": differing([leaves(run) for run in runs]),
        "origin": differing(origins),
        "result": {name: values for name, values in measured if any(value is not None for value in values)},
    }


def differing(many: Sequence[dict]) -> dict[str, list]:
    """The names whose values are not the same in all of them."""
    return {name: values for name, values in _side_by_side(many).items() if any(one != values[0] for one in values)}


@lru_cache(maxsize=2048)
def _record(path: Path, *stamp: int) -> dict:
    """`stamp` tells one state of the file from another. Raises where it is no record of a run."""
    info = read_json(path)
    for name in ("inputs", "model", "progress", "result", "process", "versions", "machine"):
        if not isinstance(info[name], dict):
            raise TypeError(f"{name} of {path} is no object")
    datetime.fromisoformat(info["created_at"])
    status_of(info)
    return info


def _problem(path: Path, info: dict, status: str) -> str | None:
    if status == "failed":
        return _text(info.get("error"))
    if status == "completed" and info["progress"].get("step"):
        if not (path / "metrics.jsonl").is_file():
            return "its metrics are gone"
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            return "it has no model: no checkpoint is there"
    return None


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) else None


def _sorted_by(value: object) -> object:
    return value.casefold() if isinstance(value, str) else value


def _searched(row: Row) -> str:
    known = (row.id, row.name, row.kind, row.status, row.corpus, row.examples, row.base, row.note)
    return " ".join(filter(None, known)).casefold()


def _side_by_side(many: Sequence[dict]) -> dict[str, list]:
    names = dict.fromkeys(name for one in many for name in one)  # a set that keeps its order
    return {name: [one.get(name) for one in many] for name in names}
