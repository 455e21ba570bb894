"""Two runs side by side: where recipe, data, origin and machine differ, and what came out. May import `data`."""

import yaml

from data.workspace import Workspace
from hub.runs import Run
from hub.words import commit, named, reference, table, text

# The parts of a comparison, and what is said where nothing in them differs.
ALIKE = {
    "recipe": "the same recipe",
    "data": "the same corpus and tokenizer",
    "origin": "the same seed, code and versions",
    "machine": "the same machine",
    "result": "",
}


def compare_runs(workspace: Workspace, first: Run, second: Run) -> dict:
    """Where two runs differ in recipe, data, origin and machine, and their results side by side."""
    recipes, infos = [_recipe(run) for run in (first, second)], [run.info() for run in (first, second)]
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


def _recipe(run: Run) -> dict:
    """The recipe's leaves by their dotted names, as the flags spell them."""
    leaves = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), inner)
        else:
            leaves[prefix] = value

    walk("", yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8")) or {})
    return leaves


def _data(info: dict) -> dict:
    """Corpus and tokenizer, each with its hash: the name alone says little."""
    return {what: named(info["inputs"].get(what)) for what in ("corpus", "tokenizer")}


def _origin(info: dict) -> dict:
    """What a run came from besides its recipe and data: other runs, seed, code, libraries."""
    git = info["git"] or {}
    return {
        "initialised from": reference(info["inputs"].get("base")),
        "forked from": reference(info["inputs"].get("parent")),
        "seed": info["seed"],
        "model code": info["code_sha"][:12],
        "commit": commit(git) if git else None,
        **info["versions"],
    }


def _differences(first: dict, second: dict) -> dict:
    names = {**first, **second}
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
