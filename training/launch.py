"""Start a training in a process of its own: what `--detach` and the page's Start do.

May import `hub` and `data`. What can be said of a recipe without work is said here, before there is a run; what its
data turn out to be is found by the new process, which records it.
"""

import copy
import json
from functools import partial
from pathlib import Path

from data.corpora import default_name, is_named, open_corpus
from data.tokenizer import KINDS, load_tokenizer, saved_versions
from data.workspace import Workspace
from hub.launch import launch
from hub.runs import Run
from training.architecture import build_config
from training.fork import create_fork
from training.initial import initial_parts, open_base, write_beginning
from training.recipe import Recipe, build_recipe, parse_flags
from training.setup import check_machine, special_tokens

MODULE = "training.pretrain"


def start(
    parts: dict, workspace: Workspace, name: str | None = None, fork: str | None = None, base: str | None = None
) -> Run:
    """Make a run and leave it training, or waiting for its turn, in a process of its own.

    Args:
        parts: a recipe's parts, as `parse_flags` and `read_recipe` give them; of a fork, what differs from its parent.
        name: what to call the run; None: its corpus, or its parent's name.
        fork: `RUN[@REVISION]` to begin from, in place of fresh weights.
        base: `MODEL[@REVISION]` whose weights a new run begins with: a run, a folder, a Hub id.

    Raises ValueError, with nothing left behind, for whatever can be known to be wrong without doing the work.
    """
    run = create(parts, workspace, name, fork, base)
    launch(run, workspace)
    return run


def create(
    parts: dict, workspace: Workspace, name: str | None = None, fork: str | None = None, base: str | None = None
) -> Run:
    """The run's folder, checked and not started; its process completes the record."""
    command = command_words(parts, name, fork, base)
    parts = located(parts, workspace)
    if fork is not None:
        return create_fork(fork, parts, workspace, name, command)
    begins_with = open_base(base, workspace) if base is not None else None
    if begins_with is not None:
        parts = initial_parts(begins_with, parts, workspace)
    recipe = build_recipe(parts)
    check(recipe, workspace)
    name = name or default_name_of(recipe.data.corpus, workspace)
    inputs, fill = {}, None
    if begins_with is not None:
        inputs, fill = {"base": begins_with.record}, partial(write_beginning, begins_with, recipe, workspace)
    return Run.create(workspace, name, "pretrain", command, recipe.to_yaml(), recipe.train.seed, inputs, fill=fill)


def check(recipe: Recipe, workspace: Workspace) -> None:
    """Raises ValueError for what is known to be wrong before any data are made."""
    workspace.room("runs")
    check_machine(recipe.train, processes=1)
    data = recipe.data
    if not known_corpus(data.corpus, workspace) and not Path(data.corpus).exists():
        open_corpus(data.corpus, workspace)  # there is none: it says so, and names the nearest
    if data.tokenizer in KINDS:
        size, special = recipe.model.get("vocab_size") or data.vocab_size, {}
    else:
        tokenizer = load_tokenizer(data.tokenizer, workspace).tokenizer
        size, special = len(tokenizer), special_tokens(tokenizer)
    build_config(recipe.model, size, recipe.train.context, special)


def located(parts: dict, workspace: Workspace) -> dict:
    """The parts with files and folders as absolute paths: the new process stands elsewhere."""
    parts = copy.deepcopy(parts)
    data = parts.get("data") or {}
    known = {"corpus": known_corpus, "tokenizer": known_tokenizer}
    for key, is_known in known.items():
        value = data.get(key)
        if isinstance(value, str) and value and not is_known(value, workspace):
            path = Path(value).expanduser()
            data[key] = str(path.resolve()) if path.exists() else value
    return parts


def known_corpus(name: str, workspace: Workspace) -> bool:
    """Whether a corpus is meant by its name, not by a path."""
    return is_named(name, workspace)


def known_tokenizer(name: str, workspace: Workspace) -> bool:
    return name in KINDS or bool(saved_versions(name, workspace))


def default_name_of(corpus: str, workspace: Workspace) -> str:
    is_name = known_corpus(corpus, workspace) and "/" not in corpus  # `hf:owner/name` is no name for a run
    return corpus if is_name else default_name(Path(corpus))


def command_words(parts: dict, name: str | None = None, fork: str | None = None, base: str | None = None) -> list[str]:
    """What to type in a terminal for the same run."""
    words = ["python", "-m", MODULE]
    words += ["--fork", fork] if fork else []
    words += ["--init-from", base] if base else []
    words += ["--run-name", name] if name else []
    return words + flags_of(parts)


def flags_of(parts: dict) -> list[str]:
    """A recipe's parts as flags, which `parse_flags` reads back to the same."""
    words = []

    def add(path: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(f"{path}.{key}", inner)
            return
        word = value if isinstance(value, str) else json.dumps(value)
        if parse_flags([f"--data.x={word}"])["data"]["x"] != value:  # text that looks like a number, or is empty
            word = json.dumps(value, ensure_ascii=False)
        words.extend([f"--{path}", word])

    for section, fields in parts.items():
        for key, value in (fields or {}).items():
            add(f"{section}.{key}", value)
    return words
