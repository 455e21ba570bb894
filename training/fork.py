"""A fork: a new run that begins at a checkpoint of another one, with that one's curve behind it.

May import `hub`, `data` and `modeling`. The checkpoint becomes the new run's own, its files shared with the parent's
where the disk can: from there on a fork is a run that was interrupted at that step, and goes on as any other.
"""

import os
import shutil
from pathlib import Path

from transformers import AutoTokenizer

from data.tokenizer import KINDS, load_tokenizer
from data.workspace import Workspace, read_json
from hub.checkpoints import COMPLETE, STATE, checkpoints, step_name, step_of, verify
from hub.metrics import METRICS, METRICS_CSV, SAMPLES, truncate
from hub.models import resolve
from hub.runs import Run
from training.architecture import build_config
from training.recipe import OPTIMIZER_DEFAULTS, Recipe, TrainRecipe, build_recipe, merge, read_recipe
from training.setup import check_architecture, special_tokens


def open_checkpoint(ref: str, workspace: Workspace) -> tuple[Run, Path]:
    """The run and the checkpoint that `RUN[@REVISION]` names, the newest where no revision is given; verified."""
    name, _, revision = ref.partition("@")
    parent = Run.open(workspace, name)
    if (kind := parent.info()["kind"]) != "pretrain":
        raise ValueError(f"run {parent.id} is of the kind {kind}: only a run of training.pretrain can be forked")
    found = checkpoints(parent)
    if not found:
        raise ValueError(f"run {parent.id} has no checkpoint to fork from yet")
    newest = revision in ("", "main")
    checkpoint = found[-1] if newest else Path(resolve(f"{parent.id}@{revision}", workspace))
    verify(checkpoint, state=False)
    return parent, checkpoint


def forked_recipe(parent: Run, checkpoint: Path, parts: dict, workspace: Workspace) -> Recipe:
    """The parent's recipe with `parts` over it. Raises ValueError for what cannot go on from this checkpoint."""
    before = read_recipe(parent.path / "recipe.yaml")
    optimizer = parts.get("train", {}).get("optimizer")
    if optimizer not in (None, before["train"]["optimizer"]):  # rates that suit the one are wrong for the other
        for field in {name for defaults in OPTIMIZER_DEFAULTS.values() for name in defaults}:
            before["train"].pop(field, None)
    recipe = build_recipe(merge(before, parts))
    check_steps(recipe.train, parent.id, checkpoint)
    tokenizer, trained_with = recipe.data.tokenizer, parent.info()["inputs"]["tokenizer"]
    # One that is still to be trained is known, and compared, only when it is there.
    if tokenizer not in KINDS and load_tokenizer(tokenizer, workspace).sha256 != trained_with["sha256"]:
        raise ValueError(
            f"run {parent.id} was trained with tokenizer {trained_with['name']}, not {tokenizer}: "
            "a fork keeps its parent's tokenizer; leave data.tokenizer out, or start a new run"
        )
    kind = read_json(checkpoint / "config.json")["model_type"]
    if recipe.model.get("model_type", kind) != kind:
        raise ValueError(
            f"run {parent.id} has another architecture: it is a {kind}, not a {recipe.model['model_type']}; "
            "a fork keeps its parent's; leave model.model_type out, or start a new run"
        )
    own = AutoTokenizer.from_pretrained(checkpoint)
    config = build_config(recipe.model, len(own), recipe.train.context, special_tokens(own))
    check_architecture(parent, config, checkpoint)
    return recipe


def check_steps(train: TrainRecipe, name: str, checkpoint: Path) -> None:
    """`train.steps` is the whole run's: raises ValueError where the checkpoint leaves none to take."""
    step = step_of(checkpoint)
    if train.steps is not None and step >= train.steps:
        raise ValueError(
            f"{name}@{checkpoint.name} has taken {step:,} steps, and {train.steps:,} is all there are to be: "
            f"give the fork more in all, such as --train.steps {step + train.steps}"
        )


def create_fork(ref: str, parts: dict, workspace: Workspace, name: str | None, command: list[str]) -> Run:
    """The folder of a new run that begins where `RUN[@REVISION]` stood. Raises ValueError where it cannot."""
    parent, checkpoint = open_checkpoint(ref, workspace)
    recipe = forked_recipe(parent, checkpoint, parts, workspace)
    same_optimizer = recipe.train.optimizer == read_recipe(parent.path / "recipe.yaml")["train"]["optimizer"]
    inputs = {
        "tokenizer": parent.info()["inputs"]["tokenizer"],
        "parent": {
            "run": parent.id,
            "revision": checkpoint.name,
            "sha256": read_json(checkpoint / COMPLETE)["sha256"],
        },
    }
    return Run.create(
        workspace, name or parent.name, "pretrain", command, recipe.to_yaml(), recipe.train.seed, inputs,
        fill=lambda folder: graft(parent, checkpoint, folder, with_state=same_optimizer),
    )  # fmt: skip


def graft(parent: Run, checkpoint: Path, folder: Path, with_state: bool) -> None:
    """Put the checkpoint, and what was measured and sampled up to it, into a new run's folder."""
    copy = folder / "checkpoints" / checkpoint.name
    left_out = shutil.ignore_patterns() if with_state else shutil.ignore_patterns(STATE)
    try:
        shutil.copytree(checkpoint, copy, copy_function=_share, ignore=left_out)
    except shutil.Error as error:
        raise ValueError(f"{parent.id}@{checkpoint.name} changed while it was read: fork it again") from error
    verify(copy)
    for name in (METRICS_CSV, METRICS, SAMPLES):
        if (parent.path / name).exists():
            shutil.copyfile(parent.path / name, folder / name)
    truncate(folder, step_of(checkpoint))


def beginning(run: Run) -> Path | None:
    """The checkpoint that a run began with, a fork's or another model's weights; None where it began with nothing."""
    inputs = run.info()["inputs"]
    if run.info()["kind"] == "finetune":  # an adapter begins with nothing; its base stays what it is
        return None
    if parent := inputs.get("parent"):
        return run.path / "checkpoints" / parent["revision"]
    return run.path / "checkpoints" / step_name(0) if inputs.get("base") else None


def _share(source: str, target: str) -> None:
    """One file under two names: a checkpoint's files are never written in place."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, or two of them
        shutil.copyfile(source, target)
