"""From a checked recipe to everything the loop needs: base, examples, adapter, run folder.

May import `training`, `hub` and `data`. What a recipe leaves open is decided here, once, and recorded, so that the
resolved recipe gives the same run again.
"""

import dataclasses
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from data.workspace import Workspace, write_atomic
from finetune import base as bases
from finetune.answers import AnswerEvaluator
from finetune.base import Base
from finetune.batches import ExampleBatches
from finetune.encoding import Prepared, prepare
from finetune.packing import pack
from finetune.recipe import DEFAULT_EPOCHS, FinetuneRecipe, context_for
from hub.adapters import write_adapter
from hub.runs import Run
from training.loop import Job


@dataclasses.dataclass(frozen=True)
class Material:
    """What a recipe is about, there: the base's folder, its tokenizer, the examples as tokens."""

    base: Base
    tokenizer: object
    prepared: Prepared
    context: int
    """The most tokens of an example."""

    @property
    def inputs(self) -> dict:
        """As run.json has them, by name and content hash."""
        examples, replay = self.prepared.examples, self.prepared.replay
        again = {"replay": {"name": replay["name"], "sha256": replay["sha256"]}} if replay else {}
        return {"examples": {"name": examples.name, "sha256": examples.sha256}, **again, "base": self.base.record}


def gather(recipe: FinetuneRecipe, workspace: Workspace, accelerator: Accelerator, record: dict | None = None):
    """The main process fetches and encodes what is missing, the others then find it.

    Args:
        record: the inputs of a run that goes on, which have to be the same.
    """
    with accelerator.main_process_first():
        base = bases.find(recipe.model, workspace, (record or {}).get("base"))
        tokenizer, config = AutoTokenizer.from_pretrained(base.folder), AutoConfig.from_pretrained(base.folder)
        context = context_for(recipe, config)
        material = Material(base, tokenizer, prepare(recipe.data, tokenizer, context, workspace), context)
    for what in ("examples", "replay"):
        began, here = ((inputs or {}).get(what) or {} for inputs in (record, material.inputs))
        if record and record.get("examples") and began.get("sha256") != here.get("sha256"):
            raise ValueError(
                f"the run was begun with the {what} {began.get('name')} ({str(began.get('sha256'))[:12]}), and the "
                f"recipe now gives others, {here.get('name')} ({str(here.get('sha256'))[:12]}): restore them, or start "
                "a new run"
            )
    return material


def resolve(recipe: FinetuneRecipe, material: Material) -> FinetuneRecipe:
    """Fill in what only base and examples can decide."""
    train = dataclasses.replace(recipe.train, context=material.context)
    if train.steps is None:
        per_epoch = make_batches(recipe, material).steps_per_epoch
        steps = max(1, round((train.epochs or DEFAULT_EPOCHS) * per_epoch))
        train = dataclasses.replace(train, steps=steps, epochs=None)
    if train.attn_implementation == "auto":
        train = dataclasses.replace(train, attn_implementation="sdpa")
    chat_tokens = bases.learns_chat_tokens(recipe.model, material.base.folder)
    data = dataclasses.replace(recipe.data, source=material.prepared.examples.name)
    model = dataclasses.replace(recipe.model, base=material.base.name, chat_tokens=chat_tokens)
    return FinetuneRecipe(data, model, train)


def make_batches(recipe: FinetuneRecipe, material: Material) -> ExampleBatches:
    train, encoded = recipe.train, material.prepared.splits["train"]
    bins = pack(encoded.starts[1:] - encoded.starts[:-1], material.context) if recipe.data.packing else None
    return ExampleBatches(encoded, train.batch_size, train.seed, bins)


def make_model(recipe: FinetuneRecipe, material: Material, checkpoint: Path | None = None):
    """The base with its adapter, the same for every process and every number of them."""
    set_seed(recipe.train.seed)
    model = bases.adapted(material.base, recipe, material.tokenizer, checkpoint)
    if recipe.data.packing:
        bases.check_packing(model, material.base.name)
    return model


def make_job(recipe: FinetuneRecipe, material: Material, run: Run, model, accelerator: Accelerator) -> Job:
    train = recipe.train
    set_seed(train.seed + accelerator.process_index)  # each process drops other units
    rows = max(1, train.batch_size // (train.accumulate * accelerator.num_processes))
    evaluator = AnswerEvaluator(material.prepared, train.context, rows, accelerator.device)
    record = material.base.record | {
        "quantization": recipe.model.quantization, "double_quantization": recipe.model.double_quantization,
    }  # fmt: skip

    def write(model, weights, tokenizer, folder: Path) -> None:
        write_adapter(accelerator.unwrap_model(model), record, weights, tokenizer, folder)

    batches = make_batches(recipe, material)
    return Job(run, train, model, material.tokenizer, batches, evaluator, accelerator, write, load_adapter)


def load_adapter(model, checkpoint: Path) -> None:
    """A checkpoint's adapter into the live model, in place."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))


def complete_record(run: Run, recipe: FinetuneRecipe, material: Material) -> None:
    """Write down, once, what a run that was made before its inputs turned out to be."""
    if "examples" not in run.info()["inputs"]:
        write_atomic(run.path / "recipe.yaml", recipe.to_yaml())
        run.update(inputs=material.inputs, seed=recipe.train.seed)


def count_parameters(model) -> dict[str, int]:
    """Of base and adapter together, weights in 4 bits counted one by one; and of what is trained."""
    trainable, total = model.get_nb_trainable_parameters()
    return {"parameters": total, "parameters_trainable": trainable}
