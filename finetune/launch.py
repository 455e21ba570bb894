"""Start a fine-tuning in a process of its own: what `--detach` and the page's Start do.

May import `training`, `hub` and `data`. What can be said of a recipe without work is said here, before there is a run.
"""

import copy
from pathlib import Path

from data.workspace import Workspace, check_name
from finetune.recipe import FinetuneRecipe, build_recipe
from finetune.skeleton import check_quantizable
from hub.launch import launch
from hub.models import open_config
from hub.runs import Run
from training.launch import flags_of
from training.setup import check_machine

MODULE = "finetune.qlora"


def start(parts: dict, workspace: Workspace, name: str | None = None) -> Run:
    """Make a run and leave it training, or waiting for its turn, in a process of its own.

    Args:
        parts: a recipe's parts.
        name: what to call the run; None: after its base and its examples.

    Raises ValueError, with nothing left behind, for whatever can be known to be wrong without doing the work.
    """
    run = create(parts, workspace, name)
    launch(run, workspace)
    return run


def create(parts: dict, workspace: Workspace, name: str | None = None) -> Run:
    """The run's folder, checked and not started; its process completes the record."""
    command = command_words(parts, name)
    recipe = build_recipe(located(parts, workspace))
    workspace.room("runs")
    check_machine(recipe.train, processes=1)
    check_quantizable(recipe, open_config(recipe.model.base, workspace))
    name = check_name(name or default_name(recipe), "run name")
    return Run.create(workspace, name, "finetune", command, recipe.to_yaml(), recipe.train.seed, {})


def located(parts: dict, workspace: Workspace) -> dict:
    """The parts with files and folders as absolute paths: the new process stands elsewhere."""
    parts = copy.deepcopy(parts)
    for section, key in (("data", "source"), ("data", "replay"), ("model", "base")):
        value = (parts.get(section) or {}).get(key)
        if isinstance(value, str) and value and Path(value).expanduser().exists():
            parts[section][key] = str(Path(value).expanduser().resolve())
    return parts


def default_name(recipe: FinetuneRecipe) -> str:
    """The examples' name, which says more of a run than its base's."""
    word = Path(recipe.data.source.rstrip("/")).stem
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in word)
    return kept.strip("-")[:40] or "finetune"


def command_words(parts: dict, name: str | None = None) -> list[str]:
    """What to type in a terminal for the same run."""
    parts = {section: dict(fields or {}) for section, fields in parts.items()}
    words = ["python", "-m", MODULE]
    for flag, section, key in (("--base", "model", "base"), ("--data", "data", "source")):
        if value := parts.get(section, {}).pop(key, None):
            words += [flag, str(value)]
    words += ["--run-name", name] if name else []
    return words + flags_of(parts)
