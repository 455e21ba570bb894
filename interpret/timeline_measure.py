"""What is measured of a model at one point of its life: heads, attention, lens and stream, on the same texts each time.

Of ours here `interpret.heads`, `ablation`, `attention`, `lens`, `probe`, `record` and what these need. Everything is a
plain number or list of numbers, so that it can be kept as JSON and laid beside the other points.

Shapes: L layers, H heads; the stream has L + 1 levels, 0 before the first layer and i + 1 behind layer i.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.workspace import sha256_json
from interpret.ablation import edits, losses, parse_target
from interpret.attention import statistics, window
from interpret.heads import KINDS, LENGTH, ROWS, looks_like
from interpret.lens import Readout, kl
from interpret.probe import probe
from interpret.probe_sets import open_set
from interpret.prompt import read_prompt
from interpret.record import record
from interpret.structure import structure

FORMAT = 1  # of a point: raise it when a number comes to mean something else
BY_HEAD = {  # what is measured of each head: what it is called, and its unit
    **{kind: (f"{name} score", "mean attention") for kind, (name, _) in KINDS.items()},
    "entropy": ("attention entropy", "share of the most"),
}
BY_LEVEL = {  # of each level of the stream
    "lens_kl": ("logit lens: KL to the model's own prediction", "nats"),
    "norm": ("norm of the residual stream", "L2, mean over tokens"),
    "probe": ("linear probe of the residual stream", "held-out accuracy"),
}
SINGLE = {  # one number a point
    "loss_first": ("random tokens", "nats per token"),
    "loss_second": ("the same once more", "nats per token"),
    "loss_second_without": ("the same once more, heads removed", "nats per token"),
    "loss_texts": ("the texts read", "nats per token"),
}


@dataclass(frozen=True)
class Settings:
    """What every point of a timeline is measured on.

    Args:
        texts: read at each point; the random tokens that heads are scored on are drawn among theirs.
        without: parts of the model (`L1H1`) that are removed, by zero, to see what copying loses.
        probe: the labelled set that a probe is fitted on, by name or as a file; "" for none. `probe_sha256` is of its
            examples: a file may change.
        length, rows, seed: of the repeated random tokens.
    """

    texts: tuple[str, ...]
    without: tuple[str, ...] = ()
    probe: str = ""
    probe_sha256: str = ""
    length: int = LENGTH
    rows: int = ROWS
    seed: int = 0

    @classmethod
    def of(cls, texts: Sequence[str], without: Sequence[str] = (), probe: str = "") -> "Settings":
        """Checked: raises ValueError for what names no part of a model, and no labelled set."""
        examples = [asdict(example) for example in open_set(probe).examples] if probe else None
        parts = tuple(str(parse_target(name)) for name in without)
        return cls(tuple(texts), parts, probe, sha256_json(examples) if probe else "")

    @property
    def key(self) -> str:
        """Points with another key are not comparable."""
        return sha256_json({"format": FORMAT, **asdict(self)})[:8]


def measure(model: nn.Module, tokenizer, settings: Settings) -> dict:
    """One point: the names of BY_HEAD (L, H), of BY_LEVEL (L + 1) and of SINGLE, and `layers`, as plain lists.

    A model without softmax attention has no heads to score: these names are then left out.
    """
    reads = [torch.tensor([read_prompt(model, tokenizer, text).ids]) for text in settings.texts]
    attends = getattr(model.config, "attention", "softmax") != "linear"
    found = _heads(model, tokenizer, settings, reads) if attends else {}
    passes = [_read(model, ids, attends) for ids in reads]
    weights = [ids.shape[1] - 1 for ids in reads]  # a text counts by the tokens that were predicted
    if settings.probe:  # of the stream before the first layer and behind each
        probed = probe(model, tokenizer, open_set(settings.probe)).layers
        found["probe"] = np.array([layer.real.accuracy for layer in probed])
    means = {name: np.average([one[name] for one in passes], axis=0, weights=weights) for name in passes[0]}
    layers = list(range(len(structure(model).layers)))
    return {"layers": layers, **{name: np.round(value, 6).tolist() for name, value in {**found, **means}.items()}}


def _heads(model: nn.Module, tokenizer, settings: Settings, reads: list[Tensor]) -> dict[str, np.ndarray | float]:
    """Scores on repeated random tokens, and the loss there with and without the parts to remove."""
    ids = [int(token) for read in reads for token in read[0]]
    asked = {"length": settings.length, "rows": settings.rows, "seed": settings.seed}
    whole = looks_like(model, tokenizer, ids, **asked)
    found = {**whole.scores, "loss_first": whole.loss_first, "loss_second": whole.loss_second}
    if settings.without:
        removed = edits(model, [parse_target(name) for name in settings.without], "zero")
        found["loss_second_without"] = looks_like(model, tokenizer, ids, **asked, edits=removed).loss_second
    return found


def _read(model: nn.Module, ids: Tensor, attends: bool) -> dict[str, np.ndarray | float]:
    """One text (1, T): entropies, lens, norms and loss, means over its tokens."""
    layers = range(len(structure(model).layers))
    levels = ["blocks.0.resid_pre", *(f"blocks.{i}.resid_post" for i in layers)]
    seen = record(model, ids, [*levels, "logits", *(["pattern"] if attends else [])])
    readout, final = Readout(model), seen["logits"][0].float().log_softmax(-1)  # (T, V)
    with torch.no_grad():  # one level's logits at a time: a vocabulary can be large
        lost = [float(kl(final, readout(seen[level][0]).cpu().log_softmax(-1)).mean()) for level in levels[:-1]]
    found = {
        "lens_kl": np.array([*lost, 0.0]),  # the last level, read out, is the model itself
        "norm": np.array([float(seen[level].float().norm(dim=-1).mean()) for level in levels]),
        "loss_texts": float(losses(seen["logits"][0], ids[0]).mean()),
    }
    if attends:
        patterns = [seen[f"blocks.{i}.pattern"][0].float().numpy() for i in layers]
        windows = [window(model.config, i) for i in layers]
        found["entropy"] = statistics(np.stack(patterns), windows)["relative_entropy"]
    return found
