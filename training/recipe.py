"""A recipe: everything that decides a run, in three parts, from defaults, a YAML file and flags.

May import `data` and `modeling` (for the dataclasses of their parts). Precedence: defaults < recipe < flags.
Only declared fields exist: an unknown key, in a file or a flag, is one line that names the nearest right one.
"""

import dataclasses
import json
import re
import reprlib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from data.console import nearest
from data.prepare import DataRecipe
from data.workspace import SCHEMA, Workspace

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
SHIPPED = Path(__file__).parent / "recipes"
# What each optimizer wants where nothing is said; Muon's step has a size of its own, hence the larger rates.
OPTIMIZER_DEFAULTS = {
    "muon": {"learning_rate": 0.02, "embedding_learning_rate": 0.02, "beta1": 0.8},
    "adamw": {"learning_rate": 1e-3, "beta1": 0.9},
}
HEADER = ("schema", "name", "version", "parent")  # what stands above the parts in a recipe that was saved
VERSION = re.compile(r"@v(\d{1,9})$")  # behind the name of a saved recipe
EXCLUSIVE = [(("train", "steps"), ("train", "epochs")), (("model", "preset"), ("model", "model_type"))]


@dataclass(config=STRICT, kw_only=True)
class TrainRecipe:
    """How the model is trained. The defaults are the first run: a laptop's CPU, minutes."""

    # length and batch
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; 680 where `epochs` is not given either, which is the first run."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training tokens, in place of `steps`."""
    batch_size: int = Field(default=32, ge=1)
    """Sequences in one optimizer step, over all processes and micro-batches together."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches the batch is split into on each process: less memory, the same training."""
    context: int = Field(default=128, ge=2)
    """Tokens in one sequence."""
    start: Literal["auto", "anywhere", "document"] = "auto"
    """Where a sequence begins: anywhere in the stream, or at a document; `auto` takes `document` where most fit."""

    # optimizer
    optimizer: Literal["adamw", "muon"] = "muon"
    """`muon` orthogonalises the update of each weight matrix and leaves the rest to AdamW."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the weight matrices. Left out: 0.02 for Muon, 1e-3 for AdamW."""
    embedding_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of embeddings and head; with Muon, of all that AdamW takes. Left out: 0.02 with Muon, else the same."""
    beta1: float | None = Field(default=None, ge=0, lt=1)
    """AdamW's decay of the first moment. Left out: 0.8 beside Muon, 0.9 alone."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of matrices and embeddings; vectors are never decayed."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients with a larger global L2 norm are scaled down to it. None: never."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability spread over the whole vocabulary (arXiv:1512.00567)."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of the mean of z², z = logsumexp(logits), which keeps logits from drifting; PaLM's is 1e-4."""
    spike_action: Literal["mark", "rewind"] = "mark"
    """What a loss spike leads to: a mark in the record, or a return to a checkpoint before it, past the batches."""
    spike_rewind_steps: int = Field(default=100, ge=1)
    """How many steps before a spike the checkpoint should be that is gone back to."""
    spike_skip_batches: int = Field(default=200, ge=1)
    """Batches left out after going back; at least up to the one that spiked."""

    # learning rate over time
    schedule: Literal["constant", "cosine", "wsd"] = "wsd"
    """Shape of the learning rate after the warm-up; `wsd` is constant, then linear decay."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps over which the rate rises from zero."""
    decay_fraction: float = Field(default=0.7, ge=0, le=1)
    """`wsd`: share of the run, at its end, over which the rate falls."""
    final_rate_fraction: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end, as a share of the peak."""

    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto` takes CUDA, then MPS, then the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward and backward pass; weights stay in fp32."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile; `auto` compiles where a compiler is found and the run is long enough to repay it."""
    attn_implementation: Literal["auto", "eager", "sdpa"] = "auto"
    """Softmax attention written out, or by the library's fused kernel; `auto` takes the faster one."""
    deterministic: bool = True
    """Only algorithms that give the same bits each time; they cost a few percent of a compiled CPU step."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; part of what makes bits repeatable. All cores when left out, and then recorded."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    # measuring and saving
    checks: Literal["stop", "warn", "skip"] = "stop"
    """What a check before the run that finds a mistake leads to: no training, or a warning; or no checks at all."""
    log_every: int = Field(default=10, ge=1)
    """Steps between reads of the device: losses are buffered there until then."""
    diagnose_every: int = Field(default=200, ge=1)
    """Steps between looks inside the model: update ratio, units, attention, logits, noise scale and more."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between evaluations of both splits."""
    eval_sequences: int = Field(default=128, ge=1)
    """Sequences of each split scored while training; at the end the whole validation split is."""
    sample_every: int = Field(default=200, ge=1)
    """Steps between sampled texts."""
    save_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    keep_states: int = Field(default=2, ge=1)
    """Checkpoints that keep what resuming needs; the weights of all stay."""
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where measurements are shown as well, such as `[tensorboard]`; the run's folder stays the record."""
    seed: int = Field(default=0, ge=0)
    """Of the weights, the order of the data and dropout."""

    @field_validator("trackers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Names from a flag or a form, commas between them, are a list too."""
        names = value.strip("[] ").split(",") if isinstance(value, str) else value
        return [name.strip() for name in names if name.strip()] if isinstance(value, str) else value

    def __post_init__(self):
        for field, value in OPTIMIZER_DEFAULTS.get(self.optimizer, OPTIMIZER_DEFAULTS["adamw"]).items():
            if getattr(self, field) is None:
                setattr(self, field, value)
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"train.steps ({self.steps}) and train.epochs ({self.epochs}) exclude each other: give one"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size {self.batch_size} cannot be split into train.accumulate {self.accumulate} "
                "equal micro-batches: choose a divisor"
            )


PARTS = {"data": DataRecipe, "train": TrainRecipe}


@dataclasses.dataclass
class Recipe:
    """The three parts. `model` is a mapping: a preset, fields of its configuration, or a `model_type`."""

    data: DataRecipe
    model: dict
    train: TrainRecipe

    def to_yaml(self) -> str:
        """The resolved recipe: passing it back gives the same run."""
        parts = {"data": dataclasses.asdict(self.data), "model": self.model, "train": dataclasses.asdict(self.train)}
        return yaml.safe_dump({"schema": SCHEMA, **parts}, sort_keys=False, allow_unicode=True)


def find_recipe(name: str, workspace: Workspace, shipped: Path = SHIPPED) -> Path:
    """A shipped recipe by name, one the user saved (`NAME@vN`, or `NAME` for its newest version), or a file."""
    room = workspace.root / "recipes"
    places = [Path(name), shipped / f"{name}.yaml", room / f"{name}.yaml", *reversed(saved_versions(name, workspace))]
    for place in places:
        if place.is_file():
            return place
    known = [path.stem for folder in (shipped, room) for path in folder.glob("[!.]*.yaml")]
    raise ValueError(f"there is no recipe {name!r}, neither a file nor a name; {nearest(name, known)}")


def saved_versions(name: str, workspace: Workspace) -> list[Path]:
    """The files `recipes/NAME@vN.yaml` of one name, oldest first."""
    found = [path for path in (workspace.root / "recipes").glob("[!.]*@v*.yaml") if VERSION.sub("", path.stem) == name]
    return sorted(found, key=lambda path: int(VERSION.search(path.stem)[1]))


def read_recipe(path: Path) -> dict:
    """The parts of a YAML or JSON recipe as plain mappings, section names checked, a saved one's header left out."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML recipe: {' '.join(str(error).split())}") from error
    return checked_parts(content, str(path))


def checked_parts(content: object, where: str) -> dict:
    """The parts of a recipe that was read from somewhere, section names checked, the header left out."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not a recipe: it should hold the sections data, model and train")
    header = {key: content[key] for key in HEADER if key in content}
    schema = header.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"{where} has schema {schema}; this version reads schema {SCHEMA}")
    sections = {section: fields for section, fields in content.items() if section not in header}
    for section, fields in sections.items():
        _check_section(section, where)
        if not isinstance(fields, dict | None):
            raise ValueError(f"{where}: section {section!r} should hold `key: value` lines, not {reprlib.repr(fields)}")
    return {section: dict(fields or {}) for section, fields in sections.items()}


def parse_flags(flags: list[str]) -> dict:
    """`--train.learning_rate 1e-4 --model.hidden_act=relu` -> {"train": {"learning_rate": 1e-4}, ...}."""
    sections: dict[str, dict] = {}
    flags = list(flags)
    while flags:
        flag = flags.pop(0)
        key, equals, value = flag.partition("=")
        section, dot, field = key.removeprefix("--").partition(".")
        if not key.startswith("--") or not dot:
            raise ValueError(f"unknown argument {flag!r}; recipe flags look like --train.steps 100, see --help")
        _check_section(section, f"flag {key}")
        if not equals:
            if not flags:
                raise ValueError(f"flag {key} needs a value, as in `{key} VALUE`")
            value = flags.pop(0)
        *path, last = field.split(".")  # --model.rope_parameters.rope_theta 5e5
        place = sections.setdefault(section, {})
        for step in path:
            place = place.setdefault(step, {})
        place[last] = parse_value(value)
    return sections


def parse_value(text: str) -> object:
    """One value, read as in a recipe file."""
    return yaml.load(text, Loader=_Loader)


def merge(*layers: dict) -> dict:
    """Later layers win, field by field; of two fields that exclude each other, the later one's."""
    merged: dict[str, dict] = {"data": {}, "model": {}, "train": {}}
    for layer in layers:
        for one, other in EXCLUSIVE:
            for given, dropped in ((one, other), (other, one)):
                section, field = given
                if layer.get(section, {}).get(field) is not None and dropped[1] not in layer[section]:
                    merged[dropped[0]].pop(dropped[1], None)
        merged = {part: _update(merged[part], layer.get(part, {})) for part in merged}
    return merged


def build_recipe(parts: dict) -> Recipe:
    """Check the three parts against their dataclasses. Raises ValueError with one sentence."""
    return Recipe(
        data=validate(DataRecipe, parts.get("data", {}), "data"),
        model=dict(parts.get("model", {})),
        train=validate(TrainRecipe, parts.get("train", {}), "train"),
    )


def fields_help(cls: type, section: str) -> str:
    """One line a field, for --help: name, default and the sentence below it in the dataclass."""
    schema = TypeAdapter(cls).json_schema()["properties"]
    return "\n".join(
        f"  --{section}.{name:<24} {entry.get('description', '')} (default: {json.dumps(entry.get('default'))})"
        for name, entry in schema.items()
    )


def check_field(section: str, name: str, value: object, parts: dict[str, type] = PARTS) -> None:
    """Raises ValueError where a field of `data` or `train` cannot be this, whatever the others are.

    Args:
        parts: the dataclass of each section, for recipes of another kind.
    """
    cls = parts[section]
    try:
        TypeAdapter(cls).validator.validate_assignment(cls(), name, value)
    except ValidationError as error:
        raise ValueError(_sentence(error, section)) from error


def validate(cls: type, fields: dict, section: str):
    """One part of a recipe from its fields. Raises ValueError with one sentence."""
    known = [field.name for field in dataclasses.fields(cls)]
    for key in fields:
        if key not in known:
            raise ValueError(f"unknown recipe key {section}.{key}; {nearest(key, known)}")
    try:
        return TypeAdapter(cls).validate_python(fields)
    except ValidationError as error:
        raise ValueError(_sentence(error, section)) from error


def _sentence(error: ValidationError, section: str) -> str:
    """The first of what was wrong; what a dataclass says of several fields is a sentence already."""
    first = error.errors()[0]
    where = ".".join(str(place) for place in first["loc"][:1])
    reason = first["msg"].removeprefix("Value error, ")
    if not where or reason.startswith(f"{section}."):
        return reason
    return f"{section}.{where} cannot be {reprlib.repr(first['input'])}: {reason[0].lower()}{reason[1:]}"


def _check_section(section: str, where: str) -> None:
    if section not in ("data", "model", "train"):
        raise ValueError(f"{where}: unknown section {section!r}; {nearest(section, ['data', 'model', 'train'])}")


def _update(target: dict, *layers: dict) -> dict:
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(target.get(key), dict)
            target[key] = _update(dict(target[key]), value) if both else value
    return target


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as everyone who writes a learning rate means it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|nan)$"),
    list("-+0123456789."),
)
