"""A model built without memory: how many parameters it has, and what each step of training it keeps and computes.

May import `modeling`. Parameters are exact, being those of the model itself; activations are what a forward pass keeps
for the backward pass when nothing is compiled, counted tensor by tensor, so no architecture needs a formula of its own.
"""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from training.architecture import build_config, build_model
from training.machine import flops_per_token
from training.optimizers import parameter_groups
from training.setup import count_parameters

FLOAT = 4  # bytes; weights, gradients, optimizer state and the loss's logits stay in fp32
SPECIAL = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}  # where the lab's own tokenizers have them
LARGEST = 10**12  # of any number in a recipe; products of larger ones overflow torch's integers
LAYERS = 1000  # a model of more would take minutes to build even without memory
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")  # as the library's configurations call it
PATIENCE = 3.0  # seconds for the forward pass: some architectures go through a text token by token
MUON_COPIES = 5  # of the matrices of one shape: look-ahead, their stack, its unit norm, the iterate before and after


_lock = threading.Lock()


@dataclass(frozen=True)
class Sketch:
    """A model that was built without memory. Bytes are of one process and one micro-batch."""

    parameters: int
    non_embedding: int
    optimizer_bytes: int
    activation_bytes: int | None
    """None where the architecture cannot be run without memory, as its path depends on numbers, or not in seconds."""
    logit_bytes: int
    passing_bytes: int
    """Beside weights, optimizer state and gradients: the most that is alive at once in a step, and is freed in it."""
    flops_per_token: float

    def memory(self) -> dict[str, int]:
        """Bytes by part. They are not all there at once: gradients come as activations go."""
        parts = {
            "weights": FLOAT * self.parameters,
            "gradients": FLOAT * self.parameters,
            "optimizer state": self.optimizer_bytes,
            "activations": self.activation_bytes,
            "logits": self.logit_bytes,
        }
        return {name: size for name, size in parts.items() if size}

    @property
    def looked_at_bytes(self) -> int:
        """The weights as they were before a step that is looked at (`training.step_measures`)."""
        return FLOAT * self.parameters

    @property
    def lasting_bytes(self) -> int:
        """Of what stays from step to step."""
        return FLOAT * self.parameters + self.optimizer_bytes


def sketch(model: dict, vocabulary: int, context: int, micro_batch: int, train) -> Sketch:
    """Sketch the model of a recipe's `model` part as a `TrainRecipe` trains it.

    Args:
        vocabulary: entries of the tokenizer.
        micro_batch: sequences that one process has in memory at once.

    Raises ValueError, in one sentence, where there is no such model.
    """
    for name, value in model.items():  # before the configuration is built, which may have a list of its layers
        check_size(f"model.{name}", value, LAYERS if name in LAYER_COUNTS else LARGEST)
    key = json.dumps(model, sort_keys=True, default=str)
    with _lock:  # several who ask for the same at once wait for the first
        return _sketch(
            key, vocabulary, context, micro_batch, train.optimizer, train.precision, train.activation_checkpointing,
            train.accumulate > 1,
        )  # fmt: skip


@lru_cache(maxsize=64)
def _sketch(
    model: str,
    vocabulary: int,
    context: int,
    micro_batch: int,
    optimizer: str,
    precision: str,
    checkpointing: bool,
    accumulates: bool,
) -> Sketch:
    config = build_config(json.loads(model), vocabulary, context, SPECIAL)
    layers = getattr(config, "num_hidden_layers", 1)
    with FakeTensorMode():
        built = build_model(config).train()
        kept = activation_bytes(built, micro_batch, context, precision)
        state, stepping = optimizer_bytes(built, optimizer), stepping_bytes(built, optimizer)
        counts = count_parameters(built)
    weights, logits = FLOAT * counts["parameters"], FLOAT * micro_batch * context * config.vocab_size
    if checkpointing and kept is not None:  # the inputs of all layers, and the inside of one at a time
        inside = max(kept - logits, 0)
        kept = logits + inside // layers + FLOAT * layers * micro_batch * context * config.hidden_size
    try:
        flops = flops_per_token(config, counts["parameters_non_embedding"], context)
    except AttributeError:  # an architecture without heads: its matrices are nearly all of the work
        flops = 6.0 * counts["parameters"]
    # The logits and their gradient; the log-probabilities between the two are among the activations. Gradients come as
    # activations go, but what earlier micro-batches gave stays. Saving holds the optimizer's state twice.
    passing = (kept or 0) + 2 * logits + (weights if accumulates else 0)
    passing = max(passing, weights + stepping, state)
    return Sketch(counts["parameters"], counts["parameters_non_embedding"], state, kept, 2 * logits, passing, flops)


def check_size(name: str, value: object, largest: int = LARGEST) -> None:
    """Raises ValueError for a number that no machine could do anything with."""
    if isinstance(value, int | float) and value > largest:
        shown = f"{value:,}" if value < LARGEST else "a number of more than 12 digits"
        raise ValueError(f"{name} is {shown}: more than {largest:,} cannot be reckoned with")


def optimizer_bytes(model, optimizer: str) -> int:
    """AdamW keeps two moments and a step count for each tensor it has; Muon one momentum for each matrix."""
    matrices, embeddings, vectors = parameter_groups(model)
    adam = [*embeddings, *vectors, *(matrices if optimizer == "adamw" else [])]
    momenta = FLOAT * sum(p.numel() for p in matrices) if optimizer == "muon" else 0
    return sum(2 * FLOAT * p.numel() + FLOAT for p in adam) + momenta


def stepping_bytes(model, optimizer: str) -> int:
    """What the optimizer's own arithmetic needs for a moment: Muon copies of all the matrices of one shape."""
    if optimizer != "muon":
        return 0
    by_shape: Counter[tuple[int, ...]] = Counter()
    for matrix in parameter_groups(model)[0]:
        by_shape[tuple(matrix.shape)] += FLOAT * matrix.numel()
    return MUON_COPIES * max(by_shape.values(), default=0)


def activation_bytes(model, rows: int, context: int, precision: str) -> int | None:
    """Bytes that one forward pass keeps for the backward pass, weights left out; None where they cannot be counted."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice
    deadline = time.monotonic() + PATIENCE

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if time.monotonic() > deadline:
            raise TimeoutError
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    try:
        ids = torch.zeros((rows, context), dtype=torch.long)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", dtype, enabled=precision != "fp32"),
        ):
            _held = model(
                input_ids=ids, labels=ids, shift_labels=ids, num_items_in_batch=rows * context, use_cache=False
            )
    except Exception:  # the library's architectures fail in as many ways
        return None
    return sum(storage.nbytes() for storage in kept.values())
