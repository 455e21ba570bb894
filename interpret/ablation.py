"""What if this part were removed: a head, a layer's attention or feed-forward, or the whole layer.

Of ours here `interpret.record`, `sites`, `structure`, `prompt` and `writing`. A part is removed by what it writes: by
nothing (zero), by its mean over a reference text, or by what it wrote in another text (resample; arXiv:2404.15255
compares the three). The first is the harshest, as the model has never seen it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.prompt import Prompt, read_prompt
from interpret.record import record
from interpret.sites import Tap
from interpret.structure import structure
from interpret.writing import spell

HOW = ("zero", "mean", "resample")
LIKELIEST = 5  # next tokens told before and after
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
    """

    removed: tuple[Target, ...]
    losses_before: Tensor
    losses_after: Tensor
    likeliest_before: list[tuple[str, float]]
    likeliest_after: list[tuple[str, float]]
    kl: float

    @property
    def loss_before(self) -> float:
        return float(self.losses_before.mean())

    @property
    def loss_after(self) -> float:
        return float(self.losses_after.mean())


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
    model: nn.Module, tokenizer, prompt: str, removed: Collection[Target], how: str = "zero", reference: str = ""
) -> Effect:
    """Read `prompt` with and without some parts.

    Args:
        how: what takes the place of what a part writes: `zero`, its `mean` over the reference, or, to `resample`, what
            it wrote there at the same position.
        reference: another text, needed by `mean` and `resample`.
    """
    read = read_prompt(model, tokenizer, prompt)
    elsewhere = read_prompt(model, tokenizer, reference) if how != "zero" and reference else None
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
    )


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
        other = torch.zeros_like(tensor)
        if how == "mean":
            other += reference.to(tensor).mean((0, 1))
        elif how == "resample":  # a shorter reference is read again from its beginning
            positions = torch.arange(tensor.shape[1]) % reference.shape[1]
            other += reference[:, positions].to(tensor)
        if None in heads:
            return other
        chosen = torch.zeros(tensor.shape[2], 1, dtype=torch.bool, device=tensor.device)
        chosen[heads] = True
        return torch.where(chosen, other, tensor)

    return tap


def losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Nats of each token but the first, (T-1,), from logits (T, V)."""
    return F.cross_entropy(logits[:-1].float(), ids[1:], reduction="none")


def _likeliest(log_probs: Tensor, tokenizer) -> list[tuple[str, float]]:
    best = log_probs.exp().topk(min(LIKELIEST, len(log_probs)))
    return [(spell(tokenizer, int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True)]
