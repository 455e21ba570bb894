"""A recipe in the making, as the page or a program hands it in: what it may name, what it starts from, and its start.

May import `hub` and `data`. The command line trusts who types; here every corpus, tokenizer and run that is named goes
through `Access` before anything is opened.
"""

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from data.access import Access
from data.builtin import BUILT_IN
from data.console import nearest
from data.corpora import snapshot_names
from data.tokenizer import KINDS
from data.workspace import Workspace, check_name
from hub.overview import find, records
from hub.process import PROJECT
from hub.runs import Run
from training import saved
from training.checks import CHECKS, MEMORY, memory_verdict
from training.estimate import Unknown, estimate
from training.fork import open_checkpoint
from training.launch import command_words, known_corpus, known_tokenizer, located, start
from training.recipe import Recipe, build_recipe, merge, read_recipe

NEWEST = 20  # runs offered by name; any other can be typed
CHECKING = 300  # seconds that the checks may take, preparing the text included
DEFAULTS, RUN = "defaults", "run:"  # what a draft may start from: nothing, or what stands before a run's id


def corpora(workspace: Workspace) -> list[str]:
    """The built-in ones and the workspace's."""
    return list(dict.fromkeys([*BUILT_IN, *snapshot_names(workspace)]))


def tokenizers(workspace: Workspace) -> list[str]:
    """The kinds that are trained on the corpus, and those that were saved."""
    return [*KINDS, *sorted(path.parent.name for path in (workspace.root / "tokenizers").glob("[!.]*@v*/report.json"))]


def trained_runs(workspace: Workspace) -> list[str]:
    """The newest runs that were trained from a recipe here."""
    return [path.name for path, info in records(workspace) if info and info.get("kind") == "pretrain"][:NEWEST]


def beginning(access: Access, ref: str) -> dict:
    """The parts to start from: of `defaults`, of a recipe that was saved or came with the lab, or of `run:ID`."""
    if not ref or ref == DEFAULTS:
        return {}
    if ref.startswith(RUN):
        return read_recipe(find(access, ref.removeprefix(RUN)).path / "recipe.yaml")
    return saved.read(access.workspace, ref)


def checkpoint_of(access: Access, fork: str) -> tuple[Run, str]:
    """(run, revision) of the checkpoint that `RUN[@REVISION]` names, the newest where none is named."""
    name, _, revision = access.reference(fork).partition("@")
    parent, checkpoint = open_checkpoint("@".join(filter(None, (find(access, name).id, revision))), access.workspace)
    return parent, checkpoint.name


def parent_parts(access: Access, fork: str | None) -> dict:
    """The recipe that a fork changes; nothing where the weights are fresh."""
    return read_recipe(checkpoint_of(access, fork)[0].path / "recipe.yaml") if fork else {}


def complete(access: Access, parts: dict, fork: str | None) -> tuple[dict, Recipe]:
    """(the parts with their names checked, the recipe they make). Raises ValueError for what may not, or cannot, be."""
    parts = permitted(access, parts)
    return parts, build_recipe(merge(parent_parts(access, fork), parts))


def permitted(access: Access, parts: dict) -> dict:
    """The parts, their corpus and tokenizer known by name or as true paths.

    Raises ValueError for what is not there and for what may not be read.
    """
    data = dict(parts.get("data") or {})
    corpus, tokenizer = (data.get(name) for name in ("corpus", "tokenizer"))
    if isinstance(corpus, str) and corpus.strip() and not known_corpus(corpus, access.workspace):
        if not any(sign in corpus for sign in "/\\~") and not (access.workspace.root / corpus).exists():
            hint = nearest(corpus[:100], corpora(access.workspace))
            raise ValueError(f"there is no corpus {corpus[:100]!r}; {hint} (a file or folder is named by its path)")
        data["corpus"] = str(access.path(corpus))
    if isinstance(tokenizer, str) and tokenizer.strip() and not known_tokenizer(tokenizer, access.workspace):
        data["tokenizer"] = access.reference(tokenizer)
        if Path(data["tokenizer"]).exists():  # a plain word may be a folder where the server stands
            data["tokenizer"] = str(access.path(tokenizer))
    return {**parts, "data": data} if data else parts


def command(workspace: Workspace, parts: dict, name: str | None, fork: str | None) -> str:
    """What to type in a terminal for the same run."""
    words = command_words(parts, (name or "").strip() or None, fork or None)
    return shlex.join(words + ([] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]))


def start_run(access: Access, parts: dict, name: str | None = None, fork: str | None = None) -> Run:
    """Start what was drafted in a process of its own.

    Args:
        parts: the recipe's; of a fork, what differs from its parent.

    Raises ValueError, with nothing left behind, for whatever can be known to be wrong without doing the work.
    """
    access.check_write()
    name = (name or "").strip() or None
    if name is not None:
        check_name(name, "run name")
    parts, recipe = complete(access, parts, fork)
    with contextlib.suppress(Unknown):  # its tokenizer is still to be fetched
        estimate(recipe, access.workspace)  # refuses sizes that no machine could hold
    if fork:
        parent, revision = checkpoint_of(access, fork)
        fork = f"{parent.id}@{revision}"
    return start(parts, access.workspace, name, fork or None)


def check_run(access: Access, parts: dict, fork: str | None = None) -> dict:
    """Do the checks of what was drafted in a process of its own, which prepares its text where that has to be done.

    Returns `recipe`, which tells what they hold for, and `checks`, a mapping for each.
    """
    access.check_write()
    parts, recipe = complete(access, parts, fork)
    if fork:
        parent, revision = checkpoint_of(access, fork)
        fork = f"{parent.id}@{revision}"
    words = command_words(located(parts, access.workspace), None, fork or None)[1:]
    command = [sys.executable, *words, "--check", "--json", "--workspace", str(access.workspace.root)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=CHECKING, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"the checks took more than {CHECKING} s, as the text is still to be prepared: "
            "start the run, which does them too, or do them in a terminal with --check"
        ) from None
    try:
        found = json.loads(done.stdout[done.stdout.index("{\n") :])
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"the checks could not be done: {said[-1]}") from None
    return {"recipe": identity(recipe, fork), "checks": found["checks"]}


def known_checks(access: Access, parts: dict, fork: str | None, last: dict) -> tuple[list[dict], list[str]]:
    """(what is known of a draft's checks, the names of those still to be done).

    Args:
        last: what `check_run` answered last, for this draft or another; empty at first.
    """
    _, recipe = complete(access, parts, fork)
    if fork:
        parent, revision = checkpoint_of(access, fork)
        fork = f"{parent.id}@{revision}"
    if last and last["recipe"] == identity(recipe, fork):
        return last["checks"], []
    try:
        verdict = memory_verdict(estimate(recipe, access.workspace))
    except Unknown:
        return [], list(CHECKS)
    known = {"name": MEMORY, **dataclasses.asdict(verdict)}
    return [known], [name for name in CHECKS if name != MEMORY]


def identity(recipe: Recipe, fork: str | None) -> str:
    """Equal for two drafts that make the same run; whether red stops it is no part of that."""
    train = dataclasses.replace(recipe.train, checks="stop")
    return dataclasses.replace(recipe, train=train).to_yaml() + (fork or "")


def is_red(checks: list[dict]) -> bool:
    return any(check["status"] == "red" for check in checks)
