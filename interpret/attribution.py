"""Direct logit attribution: what each part of a model writes into the residual stream adds to one token's logit.

Of ours here `interpret.prompt`, `record`, `structure` and `writing`. The stream is a sum, and the logit is linear in it
but for the final norm's scale; with that frozen at its value the logit is a sum too, one term a part (as in
arXiv:2211.00593). A difference of two logits is taken apart likewise.

Shapes: T tokens, C hidden size, H query heads, D head dim, L layers.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interpret.prompt import MAX_TOKENS, read_prompt
from interpret.record import check_positions, record
from interpret.structure import ADDS, Layer, Structure, stream_kind, structure
from interpret.writing import spell

LONG = 1e4  # the root mean square of a probe of a norm: its epsilon is then nothing beside the square
ROUNDING = 0.02  # more than the same logit differs by where it is computed twice in bfloat16
TOLERANCE = 1e-3  # how far a norm may be from what it is understood as; the library computes it in float32


@dataclass(frozen=True)
class Attribution:
    """The logit of `token` behind a prompt's position, or its difference to that of `minus`, as a sum.

    `shares` are by part, in the order of the forward pass: `embedding` (positions too, where they are added),
    `L0.attention`, `L0.mlp` …; by head `L0H0` … in the place of attention, and `L0.bias` where its output has one.
    `bias` is what the final norm and the head add whatever stands in the stream, `logit` what the head gives, and
    `told` the same of the model's own logits, which may be capped behind the head.
    """

    tokens: list[str]
    position: int
    token: str
    minus: str | None
    shares: dict[str, float]
    bias: float
    logit: float
    told: float
    note: str

    @property
    def rest(self) -> float:
        """What the sum lacks: rounding, in the model's own precision."""
        return self.logit - sum(self.shares.values()) - self.bias

    @property
    def capped(self) -> str:
        """A sentence where the model's own logit is another than the one taken apart; "" where it is not."""
        if abs(self.told - self.logit) <= ROUNDING * max(1.0, abs(self.logit)):
            return ""
        return f"The model caps or scales it behind the head, to {self.told:+.4f}: the shares are of the logit before."

    @property
    def target(self) -> str:
        """What is taken apart, in words."""
        of = f"logit of {self.token!r}" + (f" minus that of {self.minus!r}" if self.minus is not None else "")
        return f"{of} behind {self.tokens[self.position]!r} (position {self.position})"


def attribute(
    model: nn.Module,
    tokenizer,
    prompt: str,
    token: str = "",
    minus: str = "",
    position: int = -1,
    by_head: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> Attribution:
    """Take a token's logit apart.

    Args:
        token: the likeliest next one by default.
        minus: a token whose logit is subtracted.
        position: the token of the prompt behind which the logit is read; negative ones count from the end.
        by_head: split each layer's attention into its heads.

    Raises ValueError for a model whose parts do not add up to the stream, and for what is not one token.
    """
    parts = structure(model)
    if stream_kind(model, parts) != ADDS:
        raise ValueError(
            "this model normalises the stream in each layer (post-norm): what its parts wrote does not add up to the "
            "stream, so that a logit has no shares; its norms can be looked at"
        )
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    at = int(check_positions([position], len(read.ids)))
    last = f"blocks.{len(parts.layers) - 1}.resid_post"
    sites = ["blocks.0.resid_pre", "attn_out", "mlp_out", last, "ln_final", "logits", *(["z"] if by_head else [])]
    found = {name: tensor[0, 0] for name, tensor in record(model, read.ids, sites, positions=[at]).items()}
    logits = found["logits"]
    ids = [token_id(tokenizer, token) if token else int(logits.argmax())]
    ids += [token_id(tokenizer, minus)] if minus else []
    direction, bias, logit = logit_direction(parts, found[last], found["ln_final"], ids)
    return Attribution(
        tokens=read.tokens,
        position=at,
        token=spell(tokenizer, ids[0]),
        minus=spell(tokenizer, ids[1]) if minus else None,
        shares={name: float(vector.double() @ direction) for name, vector in written(parts, found, by_head).items()},
        bias=bias,
        logit=logit,
        told=float(logits[ids[0]]) - (float(logits[ids[1]]) if minus else 0.0),
        note=read.note,
    )


def token_id(tokenizer, text: str) -> int:
    """The one token that `text` is. Raises ValueError where it is several; a blank before a word counts."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        pieces = ", ".join(repr(spell(tokenizer, i)) for i in ids[:8])
        raise ValueError(f"{text!r} is {len(ids)} tokens ({pieces}): name one, with its leading blank where it has one")
    return ids[0]


def written(parts: Structure, found: dict[str, Tensor], by_head: bool) -> dict[str, Tensor]:
    """What each part wrote into the stream at the position, (C,) each; together they are the stream."""
    vectors = {"embedding": found["blocks.0.resid_pre"]}
    for number, layer in enumerate(parts.layers):
        if by_head:
            heads, bias = by_heads(layer, found[f"blocks.{number}.z"])
            vectors |= {f"L{number}H{head}": vector for head, vector in enumerate(heads)}
            vectors |= {f"L{number}.bias": bias} if bias.any() else {}
        else:
            vectors[f"L{number}.attention"] = found[f"blocks.{number}.attn_out"]
        vectors[f"L{number}.mlp"] = found[f"blocks.{number}.mlp_out"]
    return vectors


@torch.no_grad()
def by_heads(layer: Layer, z: Tensor) -> tuple[Tensor, Tensor]:
    """What each head wrote (H, C), through its slice of the output matrix, and the matrix's bias (C,).

    Args:
        z: what the heads gathered at one position (H, D).
    """
    alone = torch.block_diag(*z)  # (H, H*D): a row a head, the others 0
    rows = torch.cat([alone, torch.zeros_like(alone[:1])])  # what none of them writes is the bias
    out = layer.output(rows.to(_device(layer.output))[None])[0].cpu()  # (H+1, C)
    return out[:-1] - out[-1], out[-1]


def logit_direction(parts: Structure, stream: Tensor, normed: Tensor, ids: list[int]) -> tuple[Tensor, float, float]:
    """The direction (C,) of the stream that makes the logit, what is added whatever the stream, and the logit.

    Args:
        stream: what the final norm read at a position (C,).
        normed: what it made of it, which the head reads (C,).
        ids: a token, or two, of which the second's logit is subtracted.
    """
    gain, shift, centred = frozen_norm(parts.final_norm, stream)
    row, bias, logit = head_row(parts.head, normed, ids[0])
    if len(ids) == 2:
        other = head_row(parts.head, normed, ids[1])
        row, bias, logit = row - other[0], bias - other[1], logit - other[2]
    direction = gain * row
    # (v - mean of v)·d = v·(d - mean of d): the mean's subtraction moves from the stream to the direction
    return direction - direction.mean() if centred else direction, bias + float(shift @ row), logit


@torch.no_grad()
def frozen_norm(norm: nn.Module, stream: Tensor) -> tuple[Tensor, Tensor, bool]:
    """A norm with its scale frozen at `stream` (C,): the gain and shift, (C,) each, and whether it centres first.

    norm(v) = gain·v + shift, or gain·(v - mean of v) + shift. Found by what the norm does and not by its class: the
    shift is what it makes of zeros, a centring one sees nothing in a constant, and the gain is read off a long vector
    of ±1 whose mean is 0. Raises ValueError where that does not explain what it made of `stream`.
    """
    norm = copy.deepcopy(norm).float().cpu()
    x = stream.float()
    shift = norm(torch.zeros_like(x))
    signs = torch.ones_like(x)
    signs[1::2] = -1
    gain = (norm(LONG * signs) - shift).double() * signs
    centred = bool((norm(LONG * torch.ones_like(x)) - shift).abs().max() <= TOLERANCE * gain.abs().max())
    shape = gain * (x.double() - x.double().mean() if centred else x.double())  # what it makes of x, but for the scale
    made = (norm(x) - shift).double()
    scale = (made @ shape) / (shape @ shape).clamp_min(torch.finfo(torch.float64).tiny)
    if float((made - scale * shape).abs().max()) > TOLERANCE * float(made.abs().max()):
        raise ValueError("this model's final norm is neither a layer norm nor an RMS norm: a logit has no shares")
    return scale * gain, shift.double(), centred


@torch.enable_grad()
def head_row(head: nn.Module, normed: Tensor, token: int) -> tuple[Tensor, float, float]:
    """A token's row of the head (C,), its bias and its logit; by a gradient, so of quantised and adapted heads too."""
    read = normed.to(_device(head)).detach().clone().requires_grad_()
    logit = head(read[None, None])[0, 0, token]
    (row,) = torch.autograd.grad(logit, read)
    with torch.no_grad():
        bias = float(head(torch.zeros_like(read)[None, None])[0, 0, token])
    return row.double().cpu(), bias, float(logit.detach())


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
