"""Two runs side by side: where recipe, data, origin and machine differ, and what came out. May import `data`."""

from data.workspace import Workspace
from hub.recipes import leaves
from hub.runs import Run
from hub.words import commit, named, reference, table, text

# The parts of a comparison, and what is said where nothing in them differs.
ALIKE = {
    "recipe": "the same recipe",
    "data": "the same data and tokenizer",
    "origin": "the same seed, code and versions",
    "machine": "the same machine",
    "result": "",
}


def compare_runs(workspace: Workspace, first: Run, second: Run) -> dict:
    """Where two runs differ in recipe, data, origin and machine, and their results side by side."""
    recipes, infos = [leaves(run) for run in (first, second)], [run.info() for run in (first, second)]
    results = [{**info["progress"], **info["result"]} for info in infos]
    for result in results:
        result.pop("phase", None)  # what a process does at a moment is no result
    return {
        "runs": [first.id, second.id],
        "recipe": _differences(*recipes),
        "data": _differences(*map(_data, infos)),
        "origin": _differences(*map(_origin, infos)),
        "machine": _differences(*(info["machine"] for info in infos)),
        "result": {name: [result.get(name) for result in results] for name in {**results[0], **results[1]}},
    }


def show_comparison(result: dict) -> str:
    parts = []
    for part, none in ALIKE.items():
        rows = [[name, text(a), text(b)] for name, (a, b) in result[part].items()]
        parts.append(table([[part, *result["runs"]], *rows]) if rows else none)
    return "\n\n".join(part for part in parts if part)


def _data(info: dict) -> dict:
    """Corpus or examples, and tokenizer, each with its hash: the name alone says little."""
    return {what: named(info["inputs"].get(what)) for what in ("corpus", "examples", "tokenizer")}


def _origin(info: dict) -> dict:
    """What a run came from besides its recipe and data: other runs, seed, code, libraries."""
    git = info["git"] or {}
    return {
        ("base" if info["kind"] == "finetune" else "initialised from"): reference(info["inputs"].get("base")),
        ("merged from" if info["kind"] == "import" else "forked from"): reference(info["inputs"].get("parent")),
        "seed": info["seed"],
        "model code": info["code_sha"][:12],
        "commit": commit(git) if git else None,
        **info["versions"],
    }


def _differences(first: dict, second: dict) -> dict:
    names = {**first, **second}
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
