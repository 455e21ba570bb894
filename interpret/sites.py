"""Sites: the named places of a forward pass where a tensor can be looked at, or replaced.

May import `data.console`; of ours `interpret.structure`. Names are TransformerLens's: `embed`, `blocks.3.resid_pre`,
`blocks.3.pattern` …, `ln_final`, `logits`; a name without its block means that site in every layer. Ordinary hooks on
the model itself: nothing of it is rebuilt, and it is left as it was.

Shapes: B batch, T tokens, C hidden size, H query heads, G key/value heads, D head dim, U feed-forward units,
V vocabulary.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from data.console import nearest
from interpret.structure import ADDS, Layer, Structure, stream_kind, structure

IN_LAYER = {  # in the order of the forward pass: what each is, with its shape
    "resid_pre": "the residual stream that enters the layer (B, T, C)",
    "q": "queries, as the scores are taken of them, after positions (B, T, H, D)",
    "k": "keys, likewise (B, T, G, D)",
    "v": "values (B, T, G, D)",
    "attn_scores": "scores before the softmax, -inf where nothing may be seen (B, H, T, T)",
    "pattern": "attention weights; rows sum to 1 (B, H, T, T)",
    "z": "what each head gathered, before the output matrix (B, T, H, D)",
    "attn_out": "what attention adds to the stream (B, T, C)",
    "resid_mid": "the stream between the two parts (B, T, C); with norms behind the parts, what the second one reads",
    "mlp_post": "activations of the feed-forward units (B, T, U)",
    "mlp_out": "what the feed-forward part adds (B, T, C)",
    "resid_post": "the stream that leaves the layer (B, T, C)",
}
AROUND = {
    "embed": "token embeddings (B, T, C)",
    "ln_final": "the stream behind the final norm (B, T, C)",
    "logits": "scores of the next token (B, T, V)",
}
WRITTEN_OUT = ("q", "k", "v", "attn_scores", "pattern")  # only attention that is written out has them
FULL = re.compile(r"blocks\.(\d+)\.(\w+)$")

Tap = Callable[[Tensor], Tensor | None]  # sees a site's tensor; what it returns takes the tensor's place


def expand(sites: Collection[str], layers: int, only: Collection[int] | None = None) -> list[str]:
    """Full names, in the order of the forward pass. Raises ValueError for a site or a layer that does not exist.

    Args:
        sites: short names (`pattern`: in every layer) or full ones (`blocks.3.pattern`).
        layers: how many the model has.
        only: the layers that short names mean.
    """
    wanted = set()
    for site in [sites] if isinstance(sites, str) else sites:
        full = FULL.fullmatch(site)
        numbers = [int(full[1])] if full else range(layers) if only is None else only
        name = full[2] if full else site
        if name in AROUND and not full:
            wanted.add(name)
            continue
        if name not in IN_LAYER:
            raise ValueError(f"there is no site {site!r}; {nearest(name, [*IN_LAYER, *AROUND])}")
        for number in numbers:
            if not 0 <= number < layers:
                raise ValueError(f"there is no layer {number}: this model's are 0 to {layers - 1}")
            wanted.add(f"blocks.{number}.{name}")
    inside = [f"blocks.{number}.{name}" for number in range(layers) for name in IN_LAYER]
    return [name for name in ("embed", *inside, "ln_final", "logits") if name in wanted]


@contextmanager
def tapped(model: nn.Module, taps: Mapping[str, Tap], parts: Structure | None = None) -> Iterator[Structure]:
    """Inside, every forward pass shows each tap its site's tensor, and goes on with what the tap returns.

    Args:
        taps: by full name.

    Raises ValueError for a site that does not exist.
    """
    parts = parts or structure(model)
    expand(taps, len(parts.layers))  # all names exist
    by_layer: dict[int, dict[str, Tap]] = {}
    for name, tap in taps.items():
        if full := FULL.fullmatch(name):
            by_layer.setdefault(int(full[1]), {})[full[2]] = tap
    with ExitStack() as stack:
        for number, there in by_layer.items():
            mid_adds = "resid_mid" in there and stream_kind(model, parts) == ADDS
            for hook in _hooks(parts.layers[number], parts.heads, mid_adds, there):
                stack.callback(hook.remove)
        for hook in _around(model, parts, taps):
            stack.callback(hook.remove)
        if any(name in there for there in by_layer.values() for name in WRITTEN_OUT):
            attending = {id(parts.layers[number].attention): there for number, there in by_layer.items()}
            stack.enter_context(_written_out(model, attending))
        yield parts


def _hooks(layer: Layer, heads: int, mid_adds: bool, taps: dict[str, Tap]) -> Iterator[RemovableHandle]:
    """Hooks for the sites of one layer that need no attention of ours."""
    entered: list[Tensor] = []  # the stream at the layer's door, while the layer runs
    if "resid_pre" in taps or "resid_mid" in taps:
        yield layer.module.register_forward_pre_hook(_entering(entered, taps.get("resid_pre")), with_kwargs=True)
    if "attn_out" in taps:
        yield layer.attention.register_forward_hook(_leaving(taps["attn_out"]))
    if "resid_mid" in taps:
        if mid_adds:
            yield layer.attention.register_forward_hook(_leaving(_between(entered, taps["resid_mid"])))
        else:
            yield layer.mlp.register_forward_pre_hook(_entering([], taps["resid_mid"]), with_kwargs=True)
    if "z" in taps:
        yield layer.output.register_forward_pre_hook(_entering([], _by_head(taps["z"], heads)), with_kwargs=True)
    if "mlp_post" in taps:
        yield layer.down.register_forward_pre_hook(_entering([], taps["mlp_post"]), with_kwargs=True)
    for name, module in (("mlp_out", layer.mlp), ("resid_post", layer.module)):
        if name in taps:
            yield module.register_forward_hook(_leaving(taps[name]))


def _around(model: nn.Module, parts: Structure, taps: Mapping[str, Tap]) -> Iterator[RemovableHandle]:
    if "embed" in taps:
        yield parts.embedding.register_forward_hook(_leaving(taps["embed"]))
    if "ln_final" in taps:
        yield parts.decoder.register_forward_hook(_in_output("last_hidden_state", taps["ln_final"]))
    if "logits" in taps:
        yield model.register_forward_hook(_in_output("logits", taps["logits"]))


def _entering(entered: list[Tensor], tap: Tap | None):
    """A pre-hook that shows a module's first input, and keeps it in `entered` for the sites behind."""

    def hook(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = tap(hidden) if tap else None
        entered[:] = [hidden if changed is None else changed]
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    return hook


def _leaving(tap: Tap):
    """A hook that shows a module's output, or the first of several."""

    def hook(_module, _inputs, output):
        several = isinstance(output, tuple)
        changed = tap(output[0] if several else output)
        if changed is None:
            return None
        return (changed, *output[1:]) if several else changed

    return hook


def _in_output(field: str, tap: Tap):
    """A hook that shows one field of the library's outputs."""

    def hook(_module, _inputs, output):
        changed = tap(getattr(output, field))
        if changed is not None:
            output[field] = changed

    return hook


def _between(entered: list[Tensor], tap: Tap) -> Tap:
    """The stream between the parts, seen and changed through what attention adds."""

    def seen(added: Tensor) -> Tensor | None:
        changed = tap(entered[0] + added)
        return None if changed is None else changed - entered[0]

    return seen


def _by_head(tap: Tap, heads: int) -> Tap:
    """(B, T, H*D) shown as (B, T, H, D)."""

    def seen(joined: Tensor) -> Tensor | None:
        changed = tap(joined.unflatten(-1, (heads, -1)))
        return None if changed is None else changed.flatten(-2)

    return seen


# ── attention written out ──

IMPLEMENTATION = "lab_sites"
_attending: dict[int, dict[str, Tap]] = {}  # by the attention module's identity, while taps are on it


@contextmanager
def _written_out(model: nn.Module, attending: dict[int, dict[str, Tap]]) -> Iterator[None]:
    """Attention by its definition, step by step, in all layers; the implementation is put back afterwards."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(IMPLEMENTATION)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"the attention of this model ({model.config.model_type}) cannot be written out by the library: "
            f"{', '.join(WRITTEN_OUT)} cannot be had"
        ) from error
    _attending.update(attending)
    try:
        yield
    finally:
        for key in attending:
            _attending.pop(key, None)
        model.set_attn_implementation(before)


def attention(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **kwargs) -> tuple[Tensor, Tensor]:
    """softmax(q·kᵀ·scaling)·v as the library's implementations are called, with its sites shown on the way."""
    taps = _attending.get(id(module), {})

    def site(name: str, tensor: Tensor, turned: bool = False) -> Tensor:
        if name not in taps:
            return tensor
        changed = taps[name](tensor.transpose(1, 2) if turned else tensor)
        return tensor if changed is None else changed.transpose(1, 2) if turned else changed

    q, k, v = site("q", q, True), site("k", k, True), site("v", v, True)
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))  # (B, H, S, D)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)  # (B, H, T, S)
    if (cap := kwargs.get("softcap")) is not None:  # arXiv:2408.00118
        scores = cap * torch.tanh(scores / cap)
    if attention_mask is not None:
        scores = scores + attention_mask
    if "attn_scores" in taps:
        lowest = torch.finfo(scores.dtype).min / 2
        scores = site("attn_scores", scores.masked_fill(scores < lowest, -torch.inf))
    weights = site("pattern", scores.softmax(-1, dtype=torch.float32).to(q.dtype))
    return (weights @ v).transpose(1, 2), weights


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)  # without it the mask would be none at all
