"""A new run that begins with another model's weights: a run's, a folder's, or one of the Hub.

May import `hub`, `data` and `modeling`. The weights become the run's own checkpoint of step 0, without training state:
from there on the run is one that was interrupted before its first step, and needs the other model no more.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING

from data.tokenizer import KINDS, load_tokenizer
from data.workspace import Workspace
from hub.checkpoints import STATE, checkpoints, save_checkpoint
from hub.models import open_model, resolve, run_of
from hub.runs import Run
from training.architecture import OURS, build_config, build_model
from training.keeper import write_model
from training.recipe import Recipe
from training.setup import special_tokens

# Of a configuration, what belongs to one saved folder, and what the tokenizer decides.
NOT_ARCHITECTURE = {"dtype", "transformers_version", "architectures", "auto_map", "_name_or_path", "model_type",
                    "use_cache"}  # fmt: skip
TOKENS = {"bos_token_id", "eos_token_id", "pad_token_id"}


@dataclasses.dataclass
class Base:
    """A model to begin with. `tokenizer` is how a recipe names the one it reads with."""

    model: torch.nn.Module
    vocabulary: dict[str, int]
    tokenizer: str
    record: dict
    """`inputs.base` of run.json: id, revision and content hash, never a path."""

    @property
    def name(self) -> str:
        return "@".join(filter(None, (self.record["id"], self.record["revision"])))


def open_base(ref: str, workspace: Workspace) -> Base:
    """The model that `MODEL[@REVISION]` names. Raises ValueError where there is none, or it has no tokenizer."""
    place = resolve(ref, workspace)
    run = run_of(place)
    if run is not None and place == run.path and checkpoints(run):
        place = checkpoints(run)[-1]  # what `main` is at this moment
    model, tokenizer = open_model(place, workspace, dtype=torch.float32)
    if run is not None:
        identity, revision, trained_with = run.id, place.name if place != run.path else None, run.info()["inputs"]
        reads_with = _saved_name(trained_with.get("tokenizer"), workspace) or str(place.absolute())
    elif isinstance(place, Path):
        identity, revision, reads_with = place.resolve().name, None, str(place.resolve())
    else:
        identity, _, revision = place.partition("@")
        reads_with, revision = identity, revision or None
    record = {"id": identity, "revision": revision, "sha256": weights_sha256(model.state_dict())}
    return Base(model, tokenizer.get_vocab(), reads_with, record)


def initial_parts(base: Base, parts: dict, workspace: Workspace) -> dict:
    """A recipe's parts with what they leave open taken from the base: its architecture, its tokenizer.

    A `model` part that names a preset or a model_type describes a whole architecture, and nothing is added to it; a
    tokenizer that would only be trained gives way to the base's. Raises ValueError for another vocabulary.
    """
    data, model = dict(parts.get("data") or {}), dict(parts.get("model") or {})
    if data.get("tokenizer", "bpe") in KINDS:
        data["tokenizer"] = base.tokenizer
    if load_tokenizer(data["tokenizer"], workspace).tokenizer.get_vocab() != base.vocabulary:
        raise ValueError(
            f"{base.name} was trained with another vocabulary than tokenizer {data['tokenizer']}, whose ids would mean "
            "other words to it: leave data.tokenizer out"
        )
    if not {"preset", "model_type"} & {name for name, value in model.items() if value is not None}:
        model = {**architecture(base.model.config), **model}
    return {**parts, "data": data, "model": model}


def architecture(config) -> dict:
    """The `model` part of a recipe that builds such a model."""
    cls = CONFIG_MAPPING[config.model_type]
    known = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map)
    given = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name in known - NOT_ARCHITECTURE - TOKENS and value is not None
    }
    kind = {"preset": None} if config.model_type == OURS else {"model_type": config.model_type}
    return {**kind, "vocab_size": config.vocab_size, **given}


def write_beginning(base: Base, recipe: Recipe, workspace: Workspace, folder: Path) -> None:
    """Put the base's weights into a new run's folder as its step 0. Raises ValueError where they do not fit."""
    tokenizer = load_tokenizer(recipe.data.tokenizer, workspace).tokenizer
    model = build_model(build_config(recipe.model, len(tokenizer), recipe.train.context, special_tokens(tokenizer)))
    weights = base.model.state_dict()
    check_shapes(base, model, weights)
    model.load_state_dict(weights)
    checkpoint = save_checkpoint(
        Run(folder), 0, lambda place: write_model(model, model.state_dict(), tokenizer, place), lambda _: None
    )
    (checkpoint / STATE).rmdir()  # empty: the optimizer starts afresh


def check_shapes(base: Base, model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the recipe's model has other weights than the base."""
    here, kinds = model.state_dict(), (base.model.config.model_type, model.config.model_type)
    if kinds[0] != kinds[1]:
        raise ValueError(f"{base.name} is a {kinds[0]}, not a {kinds[1]}: leave the recipe's model part out")
    for name in sorted(here.keys() | weights.keys()):
        there, wanted = (_shape(each.get(name)) for each in (weights, here))
        if there != wanted:
            raise ValueError(
                f"{base.name} does not fit this recipe: {name} is {there} there and {wanted} here; leave model.preset "
                "and what changes its shape out"
            )


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """One hash of named tensors: their names, types, shapes and bytes, in whatever file they lie."""
    content = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        content.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        content.update(value.flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def _saved_name(trained_with: dict | None, workspace: Workspace) -> str | None:
    """The name of the tokenizer that a run records, where it still means the same one here."""
    try:
        same = trained_with and load_tokenizer(trained_with["name"], workspace).sha256 == trained_with["sha256"]
    except ValueError:  # it is gone, or came from a folder
        same = False
    return trained_with["name"] if same else None


def _shape(value: Tensor | None) -> str:
    return "not there" if value is None else " x ".join(map(str, value.shape))
