"""How good a model is on a corpus: loss, perplexity, bits per byte, excess over the floor, stories accepted.

May import `hub` and `data`. Every number is a mean over tokens that are each scored once; a story's excess is paired
with that story's own probability under the grammar that wrote it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data import tales
from data.console import cli
from data.snapshots import Corpus
from data.tokens import Tokens, documents, windows
from training.probe import evaluating

IGNORED = -100  # the library's label for a position that is not scored
ROUNDING = 1e-5  # nats per token that float32 may be wrong by
Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihood of a set of sequences: nats and scored tokens of each."""

    nats: np.ndarray  # (N,) float64
    tokens: np.ndarray  # (N,) int64

    @property
    def loss(self) -> float:
        """Mean nats per token."""
        return float(self.nats.sum() / self.tokens.sum())


@torch.no_grad()
def score(model, sequences: Iterable[np.ndarray], batch_size: int, device: torch.device) -> Scores:
    """Score each sequence alone, from its first token to its last; the first is given, not scored.

    Args:
        sequences: 1-D arrays of token ids, 2 or more each.
        batch_size: sequences in one forward pass, sorted by length so that little is padding.
    """
    sequences = list(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    nats, tokens = np.zeros(len(sequences)), np.zeros(len(sequences), dtype=np.int64)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs, labels = pad([sequences[i] for i in chosen])
            logits = model(input_ids=inputs.to(device), use_cache=False).logits.float()  # (B, T, V)
            losses = F.cross_entropy(
                logits.transpose(1, 2), labels.to(device), ignore_index=IGNORED, reduction="none"
            )  # (B, T), 0 where ignored
            nats[chosen] = losses.double().sum(1).cpu().numpy()
            tokens[chosen] = (labels != IGNORED).sum(1).numpy()
    return Scores(nats, tokens)


def pad(sequences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Sequences of T+1 ids or fewer -> inputs and targets, (B, T) each; targets are -100 beyond a sequence's end.

    Padding stands to the right of everything that is scored, where a causal model cannot see it: no mask is needed.
    """
    longest = max(len(s) for s in sequences) - 1
    inputs = torch.zeros(len(sequences), longest, dtype=torch.long)
    labels = torch.full((len(sequences), longest), IGNORED)
    for row, sequence in enumerate(sequences):
        ids = torch.from_numpy(sequence.astype(np.int64))
        inputs[row, : len(ids) - 1] = ids[:-1]
        labels[row, : len(ids) - 1] = ids[1:]
    return inputs, labels


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval, by the normal approximation."""
    return float(values.mean()), float(Z95 * values.std(ddof=1) / math.sqrt(len(values)))


def grammar_of(corpus: Corpus):
    """`accepts(text) -> bool` of a corpus that was written by a grammar, else None."""
    return tales.accepts if corpus.manifest["sources"][0]["name"] == "data/tales.py" else None


class Evaluator:
    """Scores a model on one corpus, always in the same way, so that the points of a curve can be compared.

    Args:
        start: `document` scores documents, each alone from its beginning (long ones in windows); `anywhere` scores
            the stream in windows that do not overlap.
    """

    def __init__(self, corpus: Corpus, tokens: Tokens, context: int, start: str, batch_size: int, device: torch.device):
        self.corpus, self.tokens, self.context, self.start = corpus, tokens, context, start
        self.batch_size, self.device = batch_size, device
        self._chosen: dict[tuple[str, int | None], list[np.ndarray]] = {}
        self._whole: dict[tuple[str, int | None], list[tuple[np.ndarray, float]]] = {}

    @property
    def floor(self) -> float | None:
        """Entropy of the validation split in nats per token, where the corpus knows it."""
        return self.tokens.meta["splits"]["validation"].get("floor")

    def sequences(self, split: str, limit: int | None = None) -> list[np.ndarray]:
        """The whole split, or `limit` sequences spread evenly over it; no token is scored twice."""
        ids = self.tokens.split(split)
        texts = documents(ids, self.tokens.starts(split)) if self.start == "document" else [ids]
        parts = [part for text in texts for part in windows(text, self.context)]
        if limit is None:
            return parts
        return [parts[i] for i in np.linspace(0, len(parts) - 1, min(limit, len(parts))).astype(int)]

    def loss(self, model, split: str, limit: int | None = None) -> float:
        if (split, limit) not in self._chosen:  # the same ones at each evaluation: cut out of the corpus once
            self._chosen[split, limit] = self.sequences(split, limit)
        return score(model, self._chosen[split, limit], self.batch_size, self.device).loss

    def bits_per_byte(self, loss: float, split: str = "validation") -> float:
        """A mean loss in nats per token as bits per UTF-8 byte of the split's text; special tokens count no bytes."""
        facts = self.tokens.meta["splits"][split]
        scored = facts["tokens"] - (self.start == "anywhere")  # the first of the stream is given there
        return loss * scored / (math.log(2) * facts["bytes"])

    def whole_documents(self, split: str, limit: int | None) -> list[tuple[np.ndarray, float]]:
        """Documents that fit one window, each with its log-probability; `limit` of them spread evenly."""
        if (split, limit) not in self._whole:
            rows = self.corpus.split(split)
            # a tokenizer that loses information has no floor, whatever the corpus knows of its texts
            known = rows["log_prob"] if "log_prob" in rows.column_names and self.floor is not None else []
            # not strict: of a corpus that knows none of them there are none
            pairs = zip(documents(self.tokens.split(split), self.tokens.starts(split)), known, strict=False)
            kept = [(sequence, p) for sequence, p in pairs if len(sequence) <= self.context + 1]
            if limit is not None:
                kept = [kept[i] for i in np.linspace(0, len(kept) - 1, min(limit, len(kept))).astype(int)]
            self._whole[split, limit] = kept
        return self._whole[split, limit]

    def excess(self, model, split: str = "validation", limit: int | None = None) -> dict | None:
        """Loss minus the corpus's own -log p, in nats per token, paired over whole documents that fit one window.

        None where the corpus does not know its documents' probabilities. `leak` is true where the model beats the
        floor by more than three standard errors: that cannot be, so validation text must have been trained on.
        """
        kept = self.whole_documents(split, limit)
        if len(kept) < 2:
            return None
        scores = score(model, [s for s, _ in kept], self.batch_size, self.device)
        floor = -np.array([p for _, p in kept]) / scores.tokens  # nats per token of each document
        excess, half = mean_interval(scores.nats / scores.tokens - floor)
        return {
            "excess": excess,
            "excess_se": half / Z95,
            "excess_interval": [excess - half, excess + half],
            "floor": float(floor.mean()),
            "documents": len(kept),
            "leak": excess < -max(3 * half / Z95, ROUNDING),
        }

    def sample(self, model, tokenizer, seed: int) -> dict:
        """One text of the model's own, of a context's length at most, and how it was drawn."""
        text = sample_texts(model, tokenizer, 1, self.context - 1, seed)[0]
        return {"text": text, "temperature": 1.0, "seed": seed}

    def report(self, model) -> dict:
        """Everything known about both splits at the end of a run."""
        validation = score(model, self.sequences("validation"), self.batch_size, self.device)
        train_loss = self.loss(model, "train", limit=len(validation.tokens))
        # the bytes of the scored text: special tokens count none
        byte_count = self.tokens.meta["splits"]["validation"]["bytes"]
        result = {
            "train_loss": train_loss,
            "val_loss": validation.loss,
            "perplexity": math.exp(min(validation.loss, 700.0)),
            "bits_per_byte": float(validation.nats.sum()) / (math.log(2) * byte_count),
            "val_tokens": int(validation.tokens.sum()),
        }
        return {**result, **(self.excess(model) or {})}


@torch.no_grad()
def sample_texts(model, tokenizer, count: int, max_new_tokens: int, seed: int, temperature: float = 1.0) -> list[str]:
    """Texts the model writes from nothing, drawn from its whole distribution, each to its end or `max_new_tokens`.

    The run's own random numbers are left as they are.
    """
    inputs = torch.full((count, 1), tokenizer.bos_token_id, device=model.device)
    settings = {
        "max_new_tokens": max_new_tokens,
        "do_sample": True,
        "temperature": temperature,
        "eos_token_id": tokenizer.eos_token_id,
    }
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        if hasattr(model, "decode"):  # the model's own decoder takes a fraction of the library's time for each token
            out = torch.stack([step.token_ids for step in model.decode(inputs, **settings)], dim=1)  # (count, T)
        else:
            mask, pad = torch.ones_like(inputs), tokenizer.pad_token_id
            out = model.generate(inputs, attention_mask=mask, pad_token_id=pad, top_k=0, **settings)[:, 1:]
    return tokenizer.batch_decode(out, skip_special_tokens=True)


if __name__ == "__main__":
    from training.evaluate_cli import main  # it imports this module

    cli(main)
