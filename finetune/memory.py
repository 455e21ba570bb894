"""What a fine-tuning will need of a machine's memory, from the base's configuration alone: no weight is fetched.

May import `training` and `finetune.trace`. Weights, adapter and optimizer are exact, being those of the model itself,
built without memory; what a step needs beside them is counted tensor by tensor in one that is run without memory.
"""

import dataclasses
import json
import threading
from functools import lru_cache

from transformers import PreTrainedConfig

from finetune.recipe import FinetuneRecipe
from finetune.skeleton import FLOAT, Weights, skeleton, weigh
from finetune.trace import Step, step
from training.estimate import HEAP, PROCESS, free_memory
from training.gpus import OnGPU, on_gpus
from training.machine import choose_device, flops_per_token

SMALL_RANK = 8  # what is proposed where memory is short
FROZEN = 2 / 3  # of a training step's operations where no gradient of the weights themselves is computed
# What a step's memory depends on; the rest of a recipe may change without its being reckoned again.
MODEL_FIELDS = ("quantization", "double_quantization", "rank", "dropout", "targets", "dora", "base")
TRAIN_FIELDS = ("context", "precision", "activation_checkpointing", "attn_implementation", "optimizer")

_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Figures of one process and one micro-batch. Bytes."""

    parameters: int
    """Of base and adapter."""
    trainable: int
    quantised_share: float
    """Of the base's parameters outside its embedding tables, those that are kept in 4 or 8 bits."""
    micro_batch: int
    memory: dict[str, int]
    """Bytes by part. They are not all there at once: gradients come as activations go."""
    memory_total: int
    """At the fullest moment. On a CPU a C library that seldom reuses freed blocks (glibc before 2.38) may hold more."""
    tensor_bytes: int
    """Of these the tensors alone, however they are allocated."""
    memory_free: int
    device: str
    flops_per_token: float

    @property
    def fits(self) -> bool:
        return self.memory_total <= self.memory_free

    @property
    def is_hopeless(self) -> bool:
        """Whether the tensors alone are more than there is, however they are allocated."""
        return self.memory.get("process", 0) + self.tensor_bytes > self.memory_free

    @property
    def warning(self) -> str:
        """Empty where it fits."""
        if self.fits:
            return ""
        return (
            f"it needs about {self.memory_total / 1e9:,.1f} GB, and {self.memory_free / 1e9:,.1f} GB are free on "
            f"{self.device} now"
        )

    @property
    def is_whole(self) -> bool:
        """Whether a step could be run without memory, so that its activations are among the parts."""
        return "activations" in self.memory

    def on_gpus(self, tokens: int) -> list[OnGPU]:
        """Whether well-known GPUs hold it, and what training on so many tokens takes there."""
        return on_gpus(tokens * self.flops_per_token, self.tensor_bytes)


def estimate(
    recipe: FinetuneRecipe, config: PreTrainedConfig, device: str | None = None, free: int | None = None
) -> Estimate:
    """The figures of a checked recipe on a base of this configuration.

    Args:
        device: cpu, cuda or mps; None: the recipe's on this machine.
        free: bytes that it may have there; None: what is free now.

    Raises ValueError where the base cannot be quantised or adapted so.
    """
    device = device or choose_device(recipe.train.device)
    rows = max(1, recipe.train.batch_size // recipe.train.accumulate)
    return _estimate(recipe, config, rows, device, free_memory(device) if free is None else free)


def largest_batch(recipe: FinetuneRecipe, config: PreTrainedConfig, memory: int, device: str | None = None) -> int:
    """The largest micro-batch that fits into so many bytes; 0 where not even one example of full length does."""
    device = device or choose_device(recipe.train.device)

    def needed(rows: int) -> int:
        return _estimate(recipe, config, rows, device, memory).memory_total

    one, two = needed(1), needed(2)
    if one > memory:
        return 0
    # memory grows by at least as much for each further example as for the second: a straight line is never above it
    fits, above = 1, 2 + int((memory - one) // max(1, two - one))
    while above - fits > 1:
        chord = (needed(above) - needed(fits)) / (above - fits)
        guess = fits + int((memory - needed(fits)) / chord)
        guess = min(max(guess, fits + 1), above - 1)
        fits, above = (guess, above) if needed(guess) <= memory else (fits, guess)
        if needed(fits + 1) > memory:
            break
    return fits


def check_fits(
    recipe: FinetuneRecipe, config: PreTrainedConfig, device: str | None = None, free: int | None = None
) -> Estimate:
    """The estimate. Raises ValueError, with what would help, where a base of this configuration cannot be trained so.

    What fits but for the allocator's own share passes: `Estimate.warning` says so.
    """
    found = estimate(recipe, config, device, free)
    if found.is_hopeless:
        raise ValueError(f"{recipe.model.base}: {found.warning}; {remedies(recipe, config, found)}")
    return found


def remedies(recipe: FinetuneRecipe, config: PreTrainedConfig, found: Estimate) -> str:
    """What would make it fit: each that does alone, else all that it takes together."""

    def needed(*changes: tuple[str, str, object]) -> Estimate:
        return estimate(changed(recipe, *changes), config, found.device, found.memory_free)

    known = savings(recipe, config, found)
    alone = [flag(one) for one in known if needed(one).fits]
    if alone:
        return f"{' or '.join(alone)} would do"
    for count in range(2, len(known) + 1):
        if needed(*known[:count]).fits:
            return f"{' and '.join(map(flag, known[:count]))} together would do"
    if not known:
        return "choose a smaller base"
    total = needed(*known).memory_total / 1e9
    return f"even with {' and '.join(map(flag, known))} it needs {total:,.1f} GB: choose a smaller base"


def savings(recipe: FinetuneRecipe, config: PreTrainedConfig, found: Estimate) -> list[tuple[str, str, object]]:
    """What takes less memory: (part, field, value) of each change that is not made already."""
    size, done = recipe.train.batch_size, recipe.train.accumulate
    rows = max(1, largest_batch(recipe, config, found.memory_free, found.device))
    split = next(n for n in range(done, size + 1) if size % n == 0 and size // n <= rows)
    made = [
        ("train", "accumulate", split),
        ("train", "activation_checkpointing", True),
        ("model", "quantization", "nf4"),
        ("model", "rank", min(recipe.model.rank, SMALL_RANK)),
    ]
    if found.device == "cuda":
        made.append(("train", "precision", "bf16"))
    return [one for one in made if changed(recipe, one) != recipe]


def changed(recipe: FinetuneRecipe, *changes: tuple[str, str, object]) -> FinetuneRecipe:
    """The recipe with other values: (part, field, value) of each."""
    for part, field, value in changes:
        recipe = dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **{field: value})})
    return recipe


def flag(change: tuple[str, str, object]) -> str:
    """A change as it is written on the command line."""
    part, field, value = change
    return f"--{part}.{field} {str(value).lower()}"


def _question(recipe: FinetuneRecipe, config: PreTrainedConfig) -> "Question":
    parts = [{name: getattr(recipe.model, name) for name in MODEL_FIELDS}]
    parts += [{name: getattr(recipe.train, name) for name in TRAIN_FIELDS}]
    return Question(json.dumps(parts, default=str) + config.to_json_string(use_diff=False), recipe, config)


@dataclasses.dataclass(frozen=True)
class Question:
    """A recipe on a base, the same one where all that memory depends on is the same."""

    key: str
    recipe: FinetuneRecipe = dataclasses.field(compare=False)
    config: PreTrainedConfig = dataclasses.field(compare=False)


def _estimate(recipe: FinetuneRecipe, config: PreTrainedConfig, rows: int, device: str, free: int) -> Estimate:
    question = _question(recipe, config)
    with _lock:  # several who ask for the same at once wait for the first
        weights, taken = _weights(question), _step(question, rows)
    gradients = FLOAT * weights.trainable
    logits = FLOAT * rows * recipe.train.context * config.get_text_config().vocab_size
    passing = (taken.peak if taken else 2 * logits + gradients) + (gradients if recipe.train.accumulate > 1 else 0)
    passing = max(passing, gradients, weights.optimizer_bytes)  # saving holds the optimizer's state twice
    process = PROCESS if device == "cpu" else 0  # a GPU's memory holds tensors only
    parts = {
        "quantised weights": weights.quantised_bytes, "other weights": weights.other_bytes,
        "adapter": weights.adapter_bytes, "gradients": gradients, "optimizer state": weights.optimizer_bytes,
        "activations": taken.kept if taken else 0, "logits": logits, "dequantised matrix": weights.dequantised_bytes,
        "process": process,
    }  # fmt: skip
    return Estimate(
        parameters=weights.parameters,
        trainable=weights.trainable,
        quantised_share=weights.quantised / max(1, weights.non_embedding - weights.trainable),
        micro_batch=rows,
        memory={name: size for name, size in parts.items() if size},
        # the adapter as it was before a step that is looked at stays through it (`training.step_measures`)
        memory_total=int(process + weights.total + weights.adapter_bytes + HEAP[device] * passing),
        tensor_bytes=weights.total + passing,
        memory_free=free,
        device=device,
        flops_per_token=_flops(config, weights, recipe.train.context),
    )


def _flops(config: PreTrainedConfig, weights: Weights, context: int) -> float:
    try:
        return FROZEN * flops_per_token(config, weights.non_embedding, context)
    except AttributeError:  # an architecture without heads: its matrices are nearly all of the work
        return FROZEN * 6.0 * weights.parameters


@lru_cache(maxsize=64)
def _weights(question: Question) -> Weights:
    return weigh(skeleton(question.recipe, question.config), question.recipe.train.optimizer)


@lru_cache(maxsize=512)
def _step(question: Question, rows: int) -> Step | None:
    return step(question.recipe, question.config, rows)
