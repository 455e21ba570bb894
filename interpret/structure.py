"""Where the parts of a causal language model are: layers, their attention and feed-forward, the final norm, the head.

Imports torch alone; nothing of ours. Found by structure: the layers are the list of `num_hidden_layers` modules, and
each holds two parts with weight matrices, of which the first attends. So one rule serves our GPT, Qwen, Llama and
GPT-2, quantised to 4 bits or with an adapter around their matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

ADDS, NORMALISES = "adds", "normalises"
_kinds: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layer:
    """One transformer layer's modules.

    Attributes:
        attention: returns what it adds to the residual stream; `output` is its last matrix, behind the heads.
        mlp: the feed-forward part; `down` is its last matrix, behind the units.
    """

    module: nn.Module
    attention: nn.Module
    output: nn.Module
    mlp: nn.Module
    down: nn.Module


@dataclass(frozen=True)
class Structure:
    """A model's parts. `decoder` is the model without its head; its last hidden state goes through `head`."""

    decoder: nn.Module
    embedding: nn.Module
    layers: tuple[Layer, ...]
    final_norm: nn.Module
    head: nn.Module
    hidden_size: int
    heads: int


def structure(model: nn.Module) -> Structure:
    """The parts of a causal language model. Raises ValueError, naming what was looked for, where there is none."""
    config = text_config(model)
    count = getattr(config, "num_hidden_layers", None)
    lists = [
        (owner, child)
        for owner in model.modules()
        for child in owner.children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if not lists:
        raise _unknown(model, f"a list of {count} layers (its config's num_hidden_layers)")
    decoder, layers = lists[0]  # the outermost
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None:
        raise _unknown(model, "a head that turns hidden states into logits")
    return Structure(
        decoder=decoder,
        embedding=embedding,
        layers=tuple(_layer(model, layer, i, config.hidden_size) for i, layer in enumerate(layers)),
        final_norm=_final_norm(decoder, layers),
        head=head,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
    )


@torch.no_grad()
def stream_kind(model: nn.Module, parts: Structure) -> str:
    """How a layer treats the residual stream, seen in a forward pass of two tokens.

    `adds`: stream + attention + feed-forward leaves it (pre-norm, arXiv:2002.04745). `normalises`: each sum goes
    through a norm (post-norm, arXiv:1706.03762), so that what the parts wrote does not add up to the stream. Raises
    ValueError where it is neither.
    """
    if model not in _kinds:
        layer, seen = parts.layers[0], {}
        hooks = [
            module.register_forward_hook(_note(seen, module), with_kwargs=True)
            for module in (layer.module, *layer.module.children())
        ]
        try:
            middle = text_config(model).vocab_size // 2  # of the first tokens one may be padding, all of it zero
            tokens = torch.tensor([[middle, middle - 1]], device=model.device)
            with torch.random.fork_rng(devices=[]):
                parts.decoder(input_ids=tokens, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        (before, after), (_, attended), (read, fed) = (seen[m] for m in (layer.module, layer.attention, layer.mlp))
        norms = [seen[m] for m in layer.module.children() if m in seen and m not in (layer.attention, layer.mlp)]
        if _close(before + attended + fed, after):
            _kinds[model] = ADDS
        elif any(_close(read + fed, into) and _close(out, after) for into, out in norms):
            _kinds[model] = NORMALISES
        else:
            raise _unknown(model, "a residual stream that attention and feed-forward add to")
    return _kinds[model]


def _note(seen: dict, module: nn.Module):
    def hook(_module, args, kwargs, output) -> None:
        inputs = args[0] if args else kwargs.get("hidden_states")
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(inputs, Tensor) and isinstance(output, Tensor):
            seen[module] = inputs.float(), output.float()

    return hook


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding in 8-bit mantissas."""
    return one.shape == other.shape and float((one - other).abs().max()) <= 0.02 * float(other.abs().max())


def text_config(model: nn.Module):
    """The configuration of the language model itself, where it is a part of a larger one too."""
    return model.config.get_text_config(decoder=True)


def _layer(model: nn.Module, layer: nn.Module, number: int, width: int) -> Layer:
    parts = [child for child in layer.children() if any(p.ndim > 1 for p in child.parameters())]
    if len(parts) != 2:
        raise _unknown(
            model, f"attention and feed-forward in layer {number}, and {len(parts)} parts with matrices found"
        )
    attention, mlp = parts
    ends = [_last_matrix(part, width) for part in parts]
    if None in ends:
        raise _unknown(
            model, f"a matrix back to the {width} numbers of the residual stream in each part of layer {number}"
        )
    return Layer(layer, attention, ends[0], mlp, ends[1])


def matrices(module: nn.Module) -> Iterator[nn.Module]:
    """The weight matrices inside, in the order they were made; an adapter around one counts as that one."""
    for child in module.children():
        if widths(child) is not None:
            yield child
        else:
            yield from matrices(child)


def inner(module: nn.Module) -> nn.Module:
    """The module that an adapter is around, or that has some of its rows learnt; any other module itself."""
    return getattr(module, "base_layer", getattr(module, "original_module", module))


def widths(module: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map, None for anything else. GPT-2's Conv1D keeps its matrix transposed."""
    module = inner(module)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if hasattr(module, "nx") and hasattr(module, "nf") else None


def _last_matrix(part: nn.Module, width: int) -> nn.Module | None:
    return next((m for m in reversed(list(matrices(part))) if widths(m)[1] == width), None)


def _final_norm(decoder: nn.Module, layers: nn.ModuleList) -> nn.Module:
    """What stands behind the layers and has vectors only; nothing where the layers normalise for themselves."""
    children = list(decoder.children())
    behind = children[children.index(layers) + 1 :]
    norms = [c for c in behind if (own := list(c.parameters())) and all(p.ndim == 1 for p in own)]
    return norms[0] if norms else nn.Identity()


def _unknown(model: nn.Module, looked_for: str) -> ValueError:
    kind = getattr(model.config, "model_type", type(model).__name__)
    return ValueError(f"this model ({kind}) is built in a way that is not understood: looked for {looked_for}")
