"""One training step of a skeleton, run without memory: what it keeps for the backward pass, and its fullest moment.

May import `finetune.skeleton`. Every tensor that an operation makes is counted from its making until nothing holds it
any more, so activation checkpointing, adapters and quantised maps need no formula of their own.
"""

import copy
import logging
import time
import weakref
from dataclasses import dataclass

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig

from finetune.base import DTYPES
from finetune.recipe import FinetuneRecipe
from finetune.skeleton import FLOAT, quantised_layers, skeleton

SHALLOW = (2, 3)  # depths that a step is run at where all layers are alike: the others add what the third one adds
PATIENCE = 20.0  # seconds: some architectures go through a text token by token

# what cannot be run is said by None, not by the library's own traceback
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Step:
    """Bytes beside weights and optimizer: `kept` between the two passes, `peak` at the fullest moment, gradients in."""

    kept: int
    peak: int


class Params4bit(FakeTensor):
    """A quantised weight without numbers, under the name by which peft knows one."""


class Counted(TorchDispatchMode):
    """Counts the bytes of all storages that come into being while it is on, as long as they live.

    Args:
        given: tensors that are there before, and do not count.
    """

    def __init__(self, given: list[Tensor]):
        super().__init__()
        self.alive: dict[int, weakref.ref] = {}  # by address, which is used again when a storage is gone
        self.now = self.peak = 0
        self.deadline = time.monotonic() + PATIENCE
        for tensor in given:
            self._add(tensor.untyped_storage(), 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if time.monotonic() > self.deadline:
            raise TimeoutError
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._add(storage, storage.nbytes())
        return out

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = weakref.ref(storage, lambda _: self._remove(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int) -> None:
        del self.alive[key]
        self.now -= size


def step(recipe: FinetuneRecipe, config: PreTrainedConfig, rows: int) -> Step | None:
    """A step of the whole model; where its layers are all alike, reckoned from those of two shallow ones.

    Raises ValueError where there is no such model.
    """
    depth = getattr(config, "num_hidden_layers", None)
    if depth is None or depth <= SHALLOW[1]:
        return trace(skeleton(recipe, config), recipe, rows)
    models = [skeleton(recipe, of_depth(config, layers)) for layers in SHALLOW]
    whole = skeleton(recipe, config)
    less, more, all_of_it = (
        [sum(p.numel() for p in model.parameters() if p.requires_grad is trained) for trained in (True, False)]
        for model in (*models, whole)
    )
    layer = [two - one for one, two in zip(less, more, strict=True)]
    if any(two + (depth - SHALLOW[1]) * one != all_ for two, one, all_ in zip(more, layer, all_of_it, strict=True)):
        return trace(whole, recipe, rows)
    one, two = (trace(model, recipe, rows) for model in models)
    if one is None or two is None:
        return None
    kept, others = two.kept - one.kept, depth - SHALLOW[1]
    # in the backward pass a layer's activations go as its gradients come: each layer adds the larger of the two at most
    most = max(kept, FLOAT * layer[0], two.peak - one.peak)
    return Step(two.kept + others * kept, two.peak + others * most)


def of_depth(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The same configuration with so many layers, the first ones."""
    depth, config = config.num_hidden_layers, copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == depth:
            setattr(config, name, value[:layers])
    config.num_hidden_layers = layers
    return config


def trace(model: nn.Module, recipe: FinetuneRecipe, rows: int) -> Step | None:
    """A step on `rows` sequences of the recipe's context; None where the architecture cannot be run without memory."""
    train, dtype = recipe.train, DTYPES[recipe.train.precision]
    try:
        with FakeTensorMode():
            given = _give_storage(model)
            if train.activation_checkpointing:
                # tensors without numbers have no random state to save
                model.get_base_model().activation_checkpointing_enable(
                    activation_checkpointing_kwargs={"preserve_rng_state": False, "use_reentrant": False}
                )
            if train.attn_implementation == "eager":
                model.get_base_model().set_attn_implementation("eager")
            ids = torch.zeros((rows, train.context), dtype=torch.long)
            batch = {"input_ids": ids, "labels": ids, "shift_labels": ids}
            plain = train.precision == "fp32"
            with Counted(given) as counted:
                with torch.autocast("cpu", dtype, enabled=not plain):
                    forward = model if plain else convert_outputs_to_fp32(model)  # as accelerate wraps it
                    loss = forward(**batch, num_items_in_batch=ids.numel(), use_cache=False).loss
                kept = counted.now
                loss.backward()
            return Step(kept, counted.peak)
    except Exception:  # the library's architectures fail in as many ways
        return None


def _give_storage(model: nn.Module) -> list[Tensor]:
    """Every tensor of a skeleton becomes one that has a storage in name. Returns them."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # beside the old one, so that its id comes once

    def real(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:  # tied ones stay one
            made[id(tensor)] = tensor, torch.empty(tensor.shape, dtype=tensor.dtype)
        return made[id(tensor)][1]

    quantised = {layer: layer.weight for layer in quantised_layers(model)}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(real(value), requires_grad=value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = real(value)
    for layer, weight in quantised.items():
        _give_constants(layer, weight, real)
    return [new for _, new in made.values()]


def _give_constants(layer: nn.Module, weight: Tensor, real) -> None:
    """What bitsandbytes finds at a quantised weight, at the one that took its place."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        layer.weight.CB, layer.weight.SCB = layer.weight.data, real(weight.SCB)
        layer.weight.has_fp16_weights = False
        return
    state = copy.copy(state)
    for holder in (state, state.state2) if state.nested else (state,):
        for name in ("absmax", "code", "offset"):
            if getattr(holder, name) is not None:
                setattr(holder, name, real(getattr(holder, name)))
    for name in ("blocksize", "compress_statistics", "quant_type", "bnb_quantized"):
        setattr(layer.weight, name, getattr(weight, name))
    layer.weight.quant_state = layer.quant_state = state
    layer.weight.__class__ = Params4bit
