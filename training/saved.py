"""Recipes that a user saved, each version with its parent: `recipes/<name>@v2.yaml`.

May import `data`. A version is written once and never changed; `training.pretrain --recipe NAME` takes the newest, or
`NAME@v2` that one.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock

from data.console import nearest
from data.workspace import SCHEMA, Workspace, check_name, write_atomic
from training.recipe import SHIPPED, VERSION, build_recipe, read_recipe, saved_versions


@dataclass(frozen=True)
class Saved:
    """One version of a saved recipe. `parent` is the reference of the one it was made from."""

    name: str
    version: int
    parent: str | None
    path: Path

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}"


def save(workspace: Workspace, name: str, parts: dict, parent: str | None = None) -> str:
    """Write the parts of a recipe as the next version of `name`; returns its reference, such as `mine@v2`.

    Args:
        parent: the recipe these parts were made from, if any: a saved or a shipped one.

    Raises ValueError for a name that cannot be a file's, for an unknown parent and for parts that are no recipe.
    """
    check_name(name, "recipe name")
    if (SHIPPED / f"{name}.yaml").exists():
        raise ValueError(f"{name!r} is a recipe that comes with the lab: choose another name")
    build_recipe(parts)
    if parent is not None and parent not in names(workspace):
        raise ValueError(f"there is no recipe {parent!r} that this one could have been made from")
    room = workspace.room("recipes")
    with FileLock(room / ".lock"):  # two pages may save at once
        version = 1 + max((_version_of(path) for path in saved_versions(name, workspace)), default=0)
        header = {"schema": SCHEMA, "name": name, "version": version, "parent": parent}
        text = yaml.safe_dump({**header, **parts}, sort_keys=False, allow_unicode=True)
        write_atomic(room / f"{name}@v{version}.yaml", text)
    return f"{name}@v{version}"


def list_saved(workspace: Workspace) -> list[Saved]:
    """Every version, by name, the newest of each first. A file that cannot be read is listed without its parent."""
    found = []
    for path in (workspace.root / "recipes").glob("[!.]*@v*.yaml"):
        if VERSION.search(path.stem):
            found.append(Saved(VERSION.sub("", path.stem), _version_of(path), _parent_of(path), path))
    return sorted(found, key=lambda saved: (saved.name, -saved.version))


def names(workspace: Workspace) -> list[str]:
    """What can be read by `read`: saved versions, then the recipes that come with the lab."""
    return [saved.ref for saved in list_saved(workspace)] + sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read(workspace: Workspace, ref: str) -> dict:
    """The parts of a saved recipe (`mine@v2`, or `mine` for its newest version) or of one that comes with the lab.

    Unlike `find_recipe` it takes no file: at the page nobody names one.
    """
    for saved in list_saved(workspace):
        if ref in (saved.ref, saved.name):
            return read_recipe(saved.path)
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    if ref in shipped:
        return read_recipe(shipped[ref])
    raise ValueError(f"there is no recipe {ref[:80]!r}; {nearest(ref, names(workspace))}")


def compare(old: dict, new: dict) -> dict[str, tuple[object, object]]:
    """Where two recipes' parts differ, by dotted names: (old, new), None where one leaves it at its default."""
    before, after = leaves(old), leaves(new)
    named = dict.fromkeys([*before, *after])  # a set that keeps its order
    return {name: (before.get(name), after.get(name)) for name in named if before.get(name) != after.get(name)}


def leaves(parts: dict, prefix: str = "") -> dict[str, object]:
    """The values of a recipe's parts by their dotted names, as the flags spell them."""
    found = {}
    for name, value in parts.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{name}.")
        elif not isinstance(value, dict):
            found[f"{prefix}{name}"] = value
    return found


def _version_of(path: Path) -> int:
    return int(VERSION.search(path.stem)[1])


def _parent_of(path: Path) -> str | None:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")).get("parent")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return None
