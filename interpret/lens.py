"""The lens: what each layer of a model would say next, at every token of a prompt.

May import `data`; of ours here `interpret.record`, `structure`, `prompt` and `writing`. The residual stream behind each
layer goes through the model's own final norm and head, as if no layer followed (nostalgebraist's logit lens); a tuned
lens (arXiv:2303.08112, `interpret.tuned_lens`) first translates it into what the last layer speaks. Behind the last
layer both are the model itself. docs/lens.md has the formulas.

Shapes: B batch, T tokens, C hidden size, V vocabulary, N positions of a block, K best guesses; R rows: the stream
before the first layer, then behind each layer in turn.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.console import cli
from interpret.prompt import MAX_TOKENS, read_prompt
from interpret.record import record
from interpret.structure import structure, widths
from interpret.writing import DIVERGED, spell

BEST = 5  # guesses that are kept of each row and token
LOGITS = 1 << 23  # numbers in one block of logits, 34 MB; a vocabulary of 150,000 then goes 55 positions at a time
BEFORE = "input"  # the row of the stream that enters the first layer

Translate = Callable[[int, Tensor], Tensor]  # (row, hidden states (N, C)) -> hidden states, same shape and type


@dataclass(frozen=True)
class Lens:
    """One prompt through a lens; every array is [row, token, …], and the last row is the model itself.

    Attributes:
        rows: `input`, then `layer 0` and so on.
        guesses: ids of the likeliest next tokens, best first, (R, T, K), and their `probabilities`.
        true_probability, rank: of the token that does come next, rank 1 being the likeliest, (R, T); NaN at the last
            token, behind which the prompt ends.
        kl: KL(model ‖ lens) of the next token's distribution, in nats, (R, T); 0 in the last row.
        entropy: of the lens's distribution, in nats, (R, T).
        spellings: of every token id in `guesses`.
        note: what was cut off the prompt, as a sentence; "" for nothing.
    """

    tuned: bool
    tokens: list[str]
    ids: list[int]
    rows: list[str]
    guesses: np.ndarray
    probabilities: np.ndarray
    true_probability: np.ndarray
    rank: np.ndarray
    kl: np.ndarray
    entropy: np.ndarray
    spellings: dict[int, str]
    note: str


def lens(
    model: nn.Module,
    tokenizer,
    prompt: str,
    translate: Translate | None = None,
    max_tokens: int = MAX_TOKENS,
    best: int = BEST,
) -> Lens:
    """Read `prompt` once and look at every layer and token.

    Args:
        translate: a tuned lens's; none for the logit lens.
        best: guesses to keep of each.

    Raises ValueError for a prompt of fewer than two tokens, and a model whose scores are not numbers.
    """
    if best < 1:
        raise ValueError(f"best={best} must be at least 1: the number of guesses to keep")
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    rows = [row[0] for row in streams(model, torch.tensor([read.ids]))]
    found = _look(model, rows, torch.tensor(read.ids), translate, best)
    return Lens(
        tuned=translate is not None,
        tokens=read.tokens,
        ids=read.ids,
        rows=row_names(len(rows) - 1),
        spellings={int(i): spell(tokenizer, int(i)) for i in np.unique(found["guesses"])},
        note=read.note,
        **found,
    )


def row_names(layers: int) -> list[str]:
    return [BEFORE, *(f"layer {i}" for i in range(layers))]


def streams(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """The residual stream before the first layer and behind each, (B, T, C) on the CPU: R of them."""
    layers = range(len(structure(model).layers))
    sites = ["blocks.0.resid_pre", *(f"blocks.{i}.resid_post" for i in layers)]
    found = record(model, ids, sites)
    return [found[site] for site in sites]


class Readout:
    """A model behind its layers: hidden states (N, C) to logits (N, V), float32.

    The model itself is called, with a decoder that gives back what it is handed: so its soft cap (arXiv:2408.00118),
    or a scale that another architecture has there, is applied as the model applies it. Gradients flow.
    """

    def __init__(self, model: nn.Module):
        self.model, self.parts = model, structure(model)
        self.vocabulary = widths(self.parts.head)[1]
        self.one = torch.zeros(1, 1, dtype=torch.long, device=model.device)  # the model insists on being given ids
        with torch.no_grad():  # what its decoder returns, fields and all: each architecture has its own
            self.output = self.parts.decoder(input_ids=self.one, use_cache=False)

    def __call__(self, hidden: Tensor) -> Tensor:
        normed = self.parts.final_norm(hidden.to(self.model.device)[None])
        output = type(self.output)(**{**self.output, "last_hidden_state": normed})
        with _handing_back(self.parts.decoder, output):
            return self.model(input_ids=self.one, use_cache=False).logits[0].float()

    def blocks(self, count: int) -> Iterator[slice]:
        """`count` positions, a block at a time, so that their logits fit."""
        size = max(1, LOGITS // self.vocabulary)
        return (slice(start, min(start + size, count)) for start in range(0, count, size))


@contextmanager
def _handing_back(decoder: nn.Module, output) -> Iterator[None]:
    """Inside, the decoder computes nothing and returns `output`; outside, it is what it was."""
    before = vars(decoder).get("forward")  # a model spread over devices has one on the module itself
    decoder.forward = lambda *_args, **_kwargs: output
    try:
        yield
    finally:
        del decoder.forward
        if before is not None:
            decoder.forward = before


@torch.no_grad()
def _look(
    model: nn.Module, rows: list[Tensor], ids: Tensor, translate: Translate | None, best: int
) -> dict[str, np.ndarray]:
    """The arrays of a Lens from the streams (T, C), by their names; one block of one row's logits at a time."""
    readout, T = Readout(model), len(ids)
    best = min(best, readout.vocabulary)
    one, several = (len(rows), T), (len(rows), T, best)
    found = {
        "guesses": np.zeros(several, dtype=np.int64),
        "probabilities": np.zeros(several),
        **{name: np.full(one, np.nan) for name in ("true_probability", "rank", "kl", "entropy")},
    }
    following = torch.cat([ids[1:], ids[:1]]).to(model.device)  # behind the last token stands none: made NaN below
    for at in readout.blocks(T):
        final = readout(rows[-1][at]).log_softmax(-1)  # (N, V)
        if final.isnan().any():
            raise ValueError(DIVERGED)
        for row, log_probs in _said(readout, rows, at, final, translate):
            for name, values in _numbers(log_probs, final, following[at], best).items():
                found[name][row, at] = values.cpu().double().numpy()
    found["true_probability"][:, -1] = found["rank"][:, -1] = np.nan
    return found


def _said(
    readout: Readout, rows: list[Tensor], at: slice, final: Tensor, translate: Translate | None
) -> Iterator[tuple[int, Tensor]]:
    """Each row with its log-probabilities (N, V) at some positions; the last row's are the model's own."""
    for row, stream in enumerate(rows[:-1]):
        hidden = stream[at].to(final.device)
        yield row, readout(translate(row, hidden) if translate else hidden).log_softmax(-1)
    yield len(rows) - 1, final


def _numbers(log_probs: Tensor, final: Tensor, following: Tensor, best: int) -> dict[str, Tensor]:
    """What is told of one block of a row, each (N,) or (N, K)."""
    probabilities = log_probs.exp()
    likeliest = probabilities.topk(best)
    true = log_probs.gather(1, following[:, None])  # (N, 1)
    return {
        "guesses": likeliest.indices,
        "probabilities": likeliest.values,
        "true_probability": true[:, 0].exp(),
        "rank": 1 + (log_probs > true).sum(1),
        "kl": kl(final, log_probs).clamp_min(0),  # rounding makes it less than nothing
        # a probability that rounds to 0 counts 0, whatever its logarithm
        "entropy": -(probabilities * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(1),
    }


def kl(final: Tensor, log_probs: Tensor) -> Tensor:
    """KL(final ‖ lens) in nats, (N,), of log-probabilities (N, V)."""
    low = torch.finfo(final.dtype).min  # -inf of a token that cannot be would make 0 · inf
    return (final.exp() * (final.clamp_min(low) - log_probs.clamp_min(low))).sum(1)


if __name__ == "__main__":
    from interpret.lens_cli import main  # it imports this module

    cli(main)
