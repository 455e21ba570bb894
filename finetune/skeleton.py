"""A base with its adapter, built without memory as training will have it: what is quantised and trained, and its bytes.

May import `hub`; peft and bitsandbytes late. The libraries' own code swaps the layers, on torch's `meta` device, so
that no architecture needs a formula of its own, and what they would refuse is refused before a weight is fetched.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from data.console import one_line
from finetune.base import DTYPES, with_adapter
from finetune.recipe import AdapterRecipe, FinetuneRecipe
from hub.adapters import quantization_config

FLOAT = 4  # bytes; the adapter and its gradients are in fp32, and AdamW's moments
NESTED_BLOCK = 256  # constants that share a constant of their own, with double quantisation (bitsandbytes)
LEVELS, NESTED_LEVELS = 16, 256  # entries of the tables of 4-bit and of 8-bit values
OPTIMIZER_BLOCK = 256  # moments that share a scale in an 8-bit optimizer (bitsandbytes)
SMALLEST_8BIT = 4096  # elements of a tensor below which such an optimizer keeps its moments in fp32
BITSANDBYTES = "bitsandbytes"  # as `quant_method` in a model's configuration
KINDS = {"load_in_4bit": "nf4", "load_in_8bit": "int8"}  # of a base that was saved quantised
WITHOUT = "choose --model.quantization none"


@dataclass(frozen=True)
class Weights:
    """What stays from step to step, in bytes, and the parameters it stands for."""

    parameters: int
    """Of base and adapter, those in 4 bits counted one by one."""
    non_embedding: int
    trainable: int
    quantised: int
    """Parameters that are kept in 4 or 8 bits."""
    quantised_bytes: int
    other_bytes: int
    adapter_bytes: int
    optimizer_bytes: int
    dequantised_bytes: int
    """The largest quantised matrix as it is when it is multiplied with."""

    @property
    def total(self) -> int:
        return self.quantised_bytes + self.other_bytes + self.adapter_bytes + self.optimizer_bytes


def skeleton(recipe: FinetuneRecipe, config: PreTrainedConfig) -> nn.Module:
    """The `PeftModel` that `finetune.base.adapted` would make, its tensors without storage.

    Raises ValueError, in one sentence, where there can be no such model.
    """
    how = recipe.model
    check_method(how, config)
    dtype, config = DTYPES[recipe.train.precision], copy.deepcopy(config)
    with torch.device("meta"):
        base = _built(config, dtype)
        if how.quantization != "none":
            _quantise(base, how, dtype)
        return with_adapter(base, how).train()


def check_quantizable(recipe: FinetuneRecipe, config: PreTrainedConfig) -> None:
    """Raises ValueError, with what would work, for a base that cannot be quantised or adapted as the recipe says."""
    skeleton(recipe, config)


def check_method(how: AdapterRecipe, config: PreTrainedConfig) -> None:
    """Raises ValueError where the base is quantised already in a way that does not go with the recipe's."""
    if how.quantization == "int8" and how.dora:
        raise ValueError("model.dora does not train on an int8 base: choose --model.quantization nf4, or leave it out")
    given = getattr(config, "quantization_config", None)
    if given is None:
        return
    given = given if isinstance(given, dict) else given.to_dict()
    method = given.get("quant_method") or BITSANDBYTES
    method = str(getattr(method, "value", method))
    kind = next((kind for flag, kind in KINDS.items() if given.get(flag)), None)
    if method != BITSANDBYTES or kind is None:
        raise ValueError(
            f"{how.base} was saved quantised by {method}, which cannot be quantised again: adapt the model it was made "
            "from"
        )
    if kind != how.quantization:
        raise ValueError(f"{how.base} was saved quantised as {kind} already: choose --model.quantization {kind}")


def _built(config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config  # the recipe says the same, as was checked
    try:
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (ValueError, TypeError, RuntimeError, AssertionError, KeyError, AttributeError, ImportError) as error:
        raise ValueError(
            f"a {config.model_type} cannot be built from its configuration: {one_line(error)[:300]}"
        ) from error


def _quantise(base: nn.Module, how: AdapterRecipe, dtype: torch.dtype) -> None:
    """Swap the linear maps as the library does on loading, and give them the constants that quantising makes."""
    quantizer = AutoHfQuantizer.from_config(
        quantization_config(how.quantization, how.double_quantization, dtype), pre_quantized=False
    )
    quantizer.preprocess_model(base, device_map=None)
    layers = list(quantised_layers(base))
    if not layers:
        raise ValueError(f"{base.config.model_type} has no linear map that {how.quantization} can quantise: {WITHOUT}")
    for layer in layers:
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.to(dtype), requires_grad=False)
        if how.quantization == "int8":
            _make_int8(layer)
        else:
            _make_nf4(layer, dtype)
    quantizer.postprocess_model(base)


def quantised_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Its layers that bitsandbytes keeps in 4 or 8 bits."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return (module for module in model.modules() if isinstance(module, Linear4bit | Linear8bitLt))


def constants(layer: nn.Module) -> list[Tensor]:
    """What a quantised layer keeps beside the weight itself."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return [layer.weight.SCB]
    nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [state.absmax, state.code, *nested]


def _make_nf4(layer: nn.Module, dtype: torch.dtype) -> None:
    """Two weights a byte; a constant for each block of them, itself in 8 bits with double quantisation."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    old, size = layer.weight, layer.weight.numel()
    blocks = -(-size // old.blocksize)
    nested = old.compress_statistics
    state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32),
        shape=old.shape,
        code=torch.empty(LEVELS),
        blocksize=old.blocksize,
        quant_type=old.quant_type,
        dtype=dtype,
        offset=torch.empty(()) if nested else None,
        state2=QuantState(
            absmax=torch.empty(-(-blocks // NESTED_BLOCK)), blocksize=NESTED_BLOCK, code=torch.empty(NESTED_LEVELS),
            dtype=torch.float32,
        ) if nested else None,
    )  # fmt: skip
    layer.weight = Params4bit(
        torch.empty(-(-size // 2), 1, dtype=torch.uint8), requires_grad=False, quant_state=state,
        blocksize=old.blocksize, compress_statistics=nested, quant_type=old.quant_type, bnb_quantized=True,
    )  # fmt: skip
    layer.quant_state = state


def _make_int8(layer: nn.Module) -> None:
    """A byte a weight, and a scale for each row."""
    from bitsandbytes.nn import Int8Params

    whole = torch.empty(layer.weight.shape, dtype=torch.int8)
    layer.weight = Int8Params(
        whole, requires_grad=False, has_fp16_weights=False, CB=whole, SCB=torch.empty(whole.shape[0])
    )


def weigh(model: nn.Module, optimizer: str) -> Weights:
    """What a `PeftModel` and its optimizer hold; tensors that are shared are counted once."""
    layers = list(quantised_layers(model))
    counts = [layer.in_features * layer.out_features for layer in layers]
    packed = {id(layer.weight) for layer in layers}
    plain = [value for value in {*model.parameters()} if id(value) not in packed]
    trained = [value for value in plain if value.requires_grad]
    frozen = [value for value in plain if not value.requires_grad]
    tables = {p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    parameters = sum(counts) + sum(value.numel() for value in plain)
    return Weights(
        parameters=parameters,
        non_embedding=parameters - sum(value.numel() for value in tables),
        trainable=sum(value.numel() for value in trained),
        quantised=sum(counts),
        quantised_bytes=size_of(value for layer in layers for value in (layer.weight, *constants(layer))),
        other_bytes=size_of([*frozen, *model.buffers()]),
        adapter_bytes=size_of(trained),
        optimizer_bytes=sum(moments_size(value.numel(), optimizer) for value in trained),
        dequantised_bytes=max(counts, default=0) * model.get_base_model().dtype.itemsize,
    )


def moments_size(elements: int, optimizer: str) -> int:
    """Bytes of AdamW's two moments of one tensor."""
    if not optimizer.endswith("8bit") or elements < SMALLEST_8BIT:
        return 2 * FLOAT * elements
    return 2 * (elements + FLOAT * -(-elements // OPTIMIZER_BLOCK))


def size_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
