"""The recipe of a fine-tuning: which examples, which adapter on which base, and how it is trained.

May import `training` and `data`. The three parts, their flags and their files are those of any recipe
(`training.recipe`); the dataclass of each stands beside its consumer, `data` in `finetune.examples`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from data.workspace import SCHEMA, Workspace
from finetune.examples import ExamplesRecipe
from training import recipe as any_recipe
from training.recipe import STRICT, TrainRecipe, validate

SHIPPED = Path(__file__).parent / "recipes"
DEFAULT_EPOCHS = 3.0  # where neither steps nor epochs are given
ALL_LINEAR = "all-linear"  # every linear map of the base but its head
Quantization = Literal["nf4", "int8", "none"]


@dataclass(config=STRICT, kw_only=True)
class AdapterRecipe:
    """What is trained: a low-rank adapter (LoRA, arXiv:2106.09685) on a base whose own weights stay as they are."""

    base: str = ""
    """The model that is adapted: a run, RUN@REVISION, a folder, or a Hub id such as Qwen/Qwen2.5-0.5B-Instruct."""
    quantization: Quantization = "nf4"
    """How the base's weights are kept: 4-bit NormalFloat (QLoRA, arXiv:2305.14314), 8-bit, or as they are."""
    double_quantization: bool = True
    """nf4: the constants of each block are quantised too, which saves 0.37 bits a weight."""
    rank: int = Field(default=16, ge=1)
    """Rank of the update of each matrix."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that are dropped in training."""
    targets: str | tuple[str, ...] = ALL_LINEAR
    """Matrices that get an adapter, by the last words of their names, such as `q_proj,v_proj`; or `all-linear`."""
    chat_tokens: bool | Literal["auto"] = "auto"
    """Learn the embeddings of the chat template's own entries too. A base that never saw them cannot end an answer;
    `auto`: where the base was trained in the lab, whose texts never hold them."""
    rslora: bool = False
    """Scale by alpha / √rank instead, so that large ranks learn as fast (arXiv:2312.03732)."""
    dora: bool = False
    """Learn the length of each matrix's columns apart from their direction (arXiv:2402.09353)."""

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Names from a flag or a form, commas between them, are a list; one name is a list of one."""
        if isinstance(value, str) and value.strip() != ALL_LINEAR:
            value = [name.strip() for name in value.strip("[] ").split(",") if name.strip()]
        if not value:
            raise ValueError(f"model.targets is empty: name matrices, such as q_proj,v_proj, or write {ALL_LINEAR}")
        return value.strip() if isinstance(value, str) else value


@dataclass(config=STRICT, kw_only=True)
class TuneRecipe(TrainRecipe):
    """How the adapter is trained."""

    epochs: float | None = Field(default=None, gt=0)
    """Passes over the examples, in place of `steps`; 3 where neither is given."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1)
    """Examples in one optimizer step, over all processes and micro-batches together; with packing, rows of several."""
    context: int = Field(default=512, ge=2)
    """The most tokens of one example."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """AdamW; with its moments in 8 bits; in memory that CUDA pages out to the host where it is short; or both."""
    learning_rate: float | None = Field(default=2e-4, gt=0)
    """Peak rate of the adapter."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    """Shape of the learning rate after the warm-up; `wsd` is constant, then linear decay."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps over which the rate rises from zero."""
    compile: Literal[False] = False
    """Batches of examples have as many lengths as there are: each would be compiled anew."""
    eval_every: int = Field(default=50, ge=1)
    """Steps between evaluations on examples of both splits."""
    sample_every: int = Field(default=50, ge=1)
    """Steps between sampled answers to a prompt that is held out."""
    save_every: int = Field(default=100, ge=1)
    """Steps between checkpoints."""


PARTS = {"data": ExamplesRecipe, "model": AdapterRecipe, "train": TuneRecipe}


@dataclasses.dataclass
class FinetuneRecipe:
    """The three parts, checked."""

    data: ExamplesRecipe
    model: AdapterRecipe
    train: TuneRecipe

    def to_yaml(self) -> str:
        """The resolved recipe: passing it back gives the same run."""
        parts = {name: dataclasses.asdict(getattr(self, name)) for name in PARTS}
        return yaml.safe_dump({"schema": SCHEMA, **parts}, sort_keys=False, allow_unicode=True)


def build_recipe(parts: dict) -> FinetuneRecipe:
    """Check the three parts against their dataclasses. Raises ValueError with one sentence."""
    recipe = FinetuneRecipe(**{name: validate(cls, parts.get(name, {}), name) for name, cls in PARTS.items()})
    if not recipe.model.base.strip():
        raise ValueError(
            "model.base is empty: name the model to adapt, as in --base Qwen/Qwen2.5-0.5B-Instruct or --base latest"
        )
    return recipe


def context_for(recipe: FinetuneRecipe, config) -> int:
    """The most tokens of an example: as asked for, but no more than the base has positions."""
    return min(recipe.train.context, getattr(config, "max_position_embeddings", None) or recipe.train.context)


def find_recipe(name: str, workspace: Workspace) -> Path:
    """A shipped recipe by name, one the user saved, or a file."""
    return any_recipe.find_recipe(name, workspace, SHIPPED)
