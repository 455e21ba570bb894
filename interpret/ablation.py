"""What if this part were removed: a head, a layer's attention or feed-forward, or the whole layer; or each in turn.

Of ours here `interpret.record`, `sites`, `structure`, `prompt` and `writing`. A part is removed by what it writes: by
nothing (zero), by its mean over a reference text, or by what it wrote in another text (resample; arXiv:2404.15255
compares the three). The first is the harshest, as the model has never seen it.

Shapes: B batch, T tokens, C hidden size, L layers, H heads, D head dim, V vocabulary.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from interpret.prompt import MAX_TOKENS, Prompt, read_prompt
from interpret.record import record
from interpret.sites import Tap
from interpret.structure import structure
from interpret.writing import spell

HOW = ("zero", "mean", "resample")
HALVES = ("attention", "mlp")
LIKELIEST = 5  # next tokens told before and after
LOGITS = 2**26  # computed at once where runs are batched: a quarter of a gigabyte in float32
NAMED = re.compile(r"L(\d+)(?:H(\d+)|\.(attention|mlp))?", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A part of a model: `L3H2` is a head, `L3.attention` and `L3.mlp` halves of a layer, `L3` the whole layer."""

    layer: int
    part: Literal["head", "attention", "mlp", "layer"]
    head: int | None = None

    def __str__(self) -> str:
        return f"L{self.layer}" + {"head": f"H{self.head}", "layer": ""}.get(self.part, f".{self.part}")

    @property
    def sites(self) -> tuple[str, ...]:
        """Where what the part writes can be replaced."""
        there = {"head": ("z",), "attention": ("attn_out",), "mlp": ("mlp_out",), "layer": ("attn_out", "mlp_out")}
        return tuple(f"blocks.{self.layer}.{site}" for site in there[self.part])


@dataclass(frozen=True)
class Effect:
    """What removing parts changes for one text.

    `losses` are nats of each token but the first, (T-1,) before and after; `likeliest` holds the next token's best
    candidates behind the whole text, (token, probability) each; `kl` is KL(before ‖ after) there, in nats.
    `read` is the text as it was read.
    """

    removed: tuple[Target, ...]
    losses_before: Tensor
    losses_after: Tensor
    likeliest_before: list[tuple[str, float]]
    likeliest_after: list[tuple[str, float]]
    kl: float
    read: Prompt

    @property
    def loss_before(self) -> float:
        return float(self.losses_before.mean())

    @property
    def loss_after(self) -> float:
        return float(self.losses_after.mean())


@dataclass(frozen=True)
class Sweep:
    """The loss of a text, in nats per token, with every part removed by itself.

    `loss` is that of the whole model; `heads` (L, H) and `halves` (L, 2), in the order of HALVES, what it is without.
    """

    loss: float
    heads: np.ndarray
    halves: np.ndarray
    read: Prompt


def parse_target(text: str) -> Target:
    """The part that `L3H2`, `L3.attention`, `L3.mlp` or `L3` names. Raises ValueError for anything else."""
    named = NAMED.fullmatch(text.strip())
    if not named:
        raise ValueError(f"{text!r} names no part of a model: write L3H2, L3.attention, L3.mlp or L3")
    layer, head, half = named.groups()
    if head is not None:
        return Target(int(layer), "head", int(head))
    return Target(int(layer), half.lower() if half else "layer")


def effect(
    model: nn.Module,
    tokenizer,
    prompt: str,
    removed: Collection[Target],
    how: str = "zero",
    reference: str = "",
    max_tokens: int = MAX_TOKENS,
) -> Effect:
    """Read `prompt` with and without some parts.

    Args:
        how: what takes the place of what a part writes: `zero`, its `mean` over the reference, or, to `resample`, what
            it wrote there at the same position.
        reference: another text, needed by `mean` and `resample`.
    """
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    elsewhere = _elsewhere(model, tokenizer, how, reference)
    ids = torch.tensor([read.ids])
    before = record(model, ids, ["logits"])["logits"][0]
    after = record(model, ids, ["logits"], edits=edits(model, removed, how, elsewhere))["logits"][0]
    ends = before[-1].float().log_softmax(-1), after[-1].float().log_softmax(-1)  # (V,)
    return Effect(
        removed=tuple(removed),
        losses_before=losses(before, ids[0]),
        losses_after=losses(after, ids[0]),
        likeliest_before=_likeliest(ends[0], tokenizer),
        likeliest_after=_likeliest(ends[1], tokenizer),
        kl=float(F.kl_div(ends[1], ends[0], log_target=True, reduction="sum")),
        read=read,
    )


def sweep(
    model: nn.Module, tokenizer, prompt: str, how: str = "zero", reference: str = "", max_tokens: int = MAX_TOKENS
) -> Sweep:
    """Read `prompt` without each head in turn, and without each half of each layer. Arguments as for `effect`."""
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    elsewhere = _elsewhere(model, tokenizer, how, reference)
    parts = structure(model)
    L, H = len(parts.layers), parts.heads
    halves = [edits(model, [Target(layer, half)], how, elsewhere) for layer in range(L) for half in HALVES]
    there = record(model, elsewhere.ids, ["z"]) if how != "zero" else {}
    heads, without = np.empty((L, H)), np.empty(2 * L)
    with tqdm(total=L * (H + 2), unit="part", desc="removing each part", leave=False, disable=None) as progress:
        for number, edit in enumerate(halves):
            without[number] = _mean_losses(model, read.ids, 1, edit)[0]
            progress.update()
        for layer in range(L):
            site = f"blocks.{layer}.z"
            for some in torch.arange(H).split(rows_at_once(model, len(read.ids))):
                edit = {site: _each_head(some, how, there.get(site))}
                heads[layer, some.numpy()] = _mean_losses(model, read.ids, len(some), edit)
                progress.update(len(some))
    return Sweep(float(_mean_losses(model, read.ids, 1, {})[0]), heads, without.reshape(L, 2), read)


def rows_at_once(model: nn.Module, T: int) -> int:
    """How many texts of T tokens can be read together before their logits take much memory."""
    return max(1, LOGITS // (T * model.get_input_embeddings().weight.shape[0]))


def _mean_losses(model: nn.Module, ids: list[int], rows: int, edit: dict[str, Tap]) -> np.ndarray:
    """The loss of the same text in each of several rows, (rows,)."""
    batch = torch.tensor(ids).expand(rows, -1)
    logits = record(model, batch, ["logits"], edits=edit)["logits"]
    return np.array([float(losses(row, batch[0]).mean()) for row in logits])


def _elsewhere(model: nn.Module, tokenizer, how: str, reference: str) -> Prompt | None:
    """The text that gives what stands in for a part, where there is one."""
    return read_prompt(model, tokenizer, reference) if how != "zero" and (reference or "").strip() else None


def edits(model: nn.Module, removed: Collection[Target], how: str, reference: Prompt | None = None) -> dict[str, Tap]:
    """What takes the place of the parts, for `interpret.record` and `interpret.sites.tapped`.

    Raises ValueError for a part that the model lacks, and for a replacement that needs a reference where there is none.
    """
    if how not in HOW:
        raise ValueError(f"a part can be removed by {', '.join(HOW)}, not by {how!r}")
    parts = structure(model)
    for target in removed:
        if target.layer >= len(parts.layers):
            raise ValueError(f"there is no layer {target.layer}: this model's are 0 to {len(parts.layers) - 1}")
        if target.head is not None and target.head >= parts.heads:
            raise ValueError(f"there is no head {target.head}: this model's are 0 to {parts.heads - 1}")
    if how != "zero" and reference is None:
        raise ValueError(f"to remove by {how}, give a reference text: what stands there takes the part's place")
    sites = {site for target in removed for site in target.sites}
    there = record(model, reference.ids, sites) if how != "zero" and sites else {}
    return {
        site: _replacement([t.head for t in removed if site in t.sites], how, there.get(site)) for site in sorted(sites)
    }


def _replacement(heads: list[int | None], how: str, reference: Tensor | None) -> Tap:
    """Of a site (B, T, C), or of some heads of (B, T, H, D)."""

    def tap(tensor: Tensor) -> Tensor:
        other = _instead(tensor, how, reference)
        if None in heads:
            return other
        chosen = torch.zeros(tensor.shape[2], 1, dtype=torch.bool, device=tensor.device)
        chosen[heads] = True
        return torch.where(chosen, other, tensor)

    return tap


def _each_head(heads: Tensor, how: str, reference: Tensor | None) -> Tap:
    """Of (B, T, H, D): row i loses the i-th of `heads` (B,)."""

    def tap(tensor: Tensor) -> Tensor:
        chosen = F.one_hot(heads, tensor.shape[2]).bool().to(tensor.device)[:, None, :, None]  # (B, 1, H, 1)
        return torch.where(chosen, _instead(tensor, how, reference), tensor)

    return tap


def _instead(tensor: Tensor, how: str, reference: Tensor | None) -> Tensor:
    """What takes the whole tensor's place, in its shape."""
    other = torch.zeros_like(tensor)
    if how == "mean":
        other += reference.to(tensor).mean((0, 1))
    elif how == "resample":  # a shorter reference is read again from its beginning
        positions = torch.arange(tensor.shape[1]) % reference.shape[1]
        other += reference[:, positions].to(tensor)
    return other


def losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Nats of each token but the first, (T-1,), from logits (T, V)."""
    return F.cross_entropy(logits[:-1].float(), ids[1:], reduction="none")


def _likeliest(log_probs: Tensor, tokenizer) -> list[tuple[str, float]]:
    best = log_probs.exp().topk(min(LIKELIEST, len(log_probs)))
    return [(spell(tokenizer, int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True)]
