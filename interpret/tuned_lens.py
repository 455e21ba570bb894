"""The tuned lens (arXiv:2303.08112): one affine translator a layer, trained to say what the model will say in the end.

May import `data`; of ours here `interpret.lens` and `structure`. A translator starts as the identity, which is the
logit lens, and learns by KL to the model's own distribution on text; the model itself is never changed. It is kept
beside the run, in `lens/<revision>/`, and refuses to be used with other weights than those it was trained for.

Shapes: B batch, T tokens, C hidden size, V vocabulary, N positions, L layers, R = L + 1 rows (see `interpret.lens`).
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.console import cli
from data.workspace import SCHEMA, Workspace, new_folder, read_json, sha256_bytes, write_json
from interpret.lens import Readout, kl, streams
from interpret.structure import structure

WEIGHTS, RECORD = "translators.safetensors", "lens.json"


@dataclass(frozen=True)
class Settings:
    """How a tuned lens is trained.

    Raises ValueError for a number that cannot be.
    """

    steps: int = 250  # as many as the paper's
    batch_size: int = 8  # rows of `context` tokens
    context: int = 128
    start: str = "anywhere"  # where a row begins: with a document, or anywhere
    learning_rate: float = 0.2  # of the stream's own size, how far a step may move it; falls to 0 in a straight line
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "context", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be more than 0")


class Translators:
    """h + W·h + b for every row but the last, which is the model itself; W (L, C, C) and b (L, C), float32."""

    def __init__(self, matrices: Tensor, biases: Tensor):
        self.matrices, self.biases = matrices, biases

    def __call__(self, row: int, hidden: Tensor) -> Tensor:
        if row == len(self.matrices):
            return hidden
        return translate(hidden, self.matrices[row].to(hidden.device), self.biases[row].to(hidden.device))


def translate(hidden: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """(N, C), in float32 whatever the type of the stream is, and back."""
    wide = hidden.float()
    return (wide + wide @ matrix.T + bias).to(hidden.dtype)


# ── training ──


def train(
    model: nn.Module,
    batch_at: Callable[[int], Tensor],
    settings: Settings,
    told: Callable[[float], object] = lambda loss: None,
) -> Translators:
    """Learn a translator for every layer at once.

    Args:
        batch_at: token ids (B, T) of a step.
        told: hears the mean KL over the layers, in nats, after each step.
    """
    rows = streams(model, batch_at(0))
    C, device = structure(model).hidden_size, model.device
    pairs = [[torch.zeros(shape, device=device, requires_grad=True) for shape in ((C, C), (C,))] for _ in rows[:-1]]
    # Adam moves every number by about its rate, and C of them, all to one side, add up in a sum; a bias counts against
    # the size that the stream has there.
    groups = []
    for (matrix, bias), stream in zip(pairs, rows[:-1], strict=True):
        size = float(stream.float().square().mean().sqrt())
        groups += [{"params": [matrix], "share": 1 / C}, {"params": [bias], "share": size}]
    optimizer, readout = torch.optim.Adam(groups), Readout(model)
    for step in range(settings.steps):
        rate = settings.learning_rate * (1 - step / settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
        told(descend(readout, streams(model, batch_at(step)), pairs))
        optimizer.step()
    matrices, biases = (torch.stack([pair[i].detach().cpu() for pair in pairs]) for i in (0, 1))
    return Translators(matrices, biases)


def descend(readout: Readout, rows: list[Tensor], pairs: list[list[Tensor]]) -> float:
    """Add each translator's gradient of its mean KL over all positions; returns the mean over the layers.

    The model's own weights get none. One block of one row's logits at a time.
    """
    flat = [stream.flatten(0, 1) for stream in rows]
    N, total = len(flat[0]), 0.0
    for at in readout.blocks(N):
        with torch.no_grad():
            final = readout(flat[-1][at]).log_softmax(-1)  # (n, V)
        for stream, pair in zip(flat[:-1], pairs, strict=True):
            log_probs = readout(translate(stream[at].to(final.device), *pair)).log_softmax(-1)
            loss = kl(final, log_probs).sum() / N
            for part, gradient in zip(pair, torch.autograd.grad(loss, pair), strict=True):
                part.grad = gradient if part.grad is None else part.grad + gradient
            total += float(loss.detach())
    return total / len(pairs)


@torch.no_grad()
def mean_kl(model: nn.Module, sequences: Iterable[Tensor], translators: Translators) -> dict[str, list[float]]:
    """KL(model ‖ lens) in nats, by layer, of the `logit` lens and of the `tuned` one; a mean over all tokens.

    Args:
        sequences: token ids (T,) each, of text that no translator was trained on.
    """
    readout, count = Readout(model), 0
    sums = {lens: np.zeros(len(translators.matrices)) for lens in ("logit", "tuned")}
    for ids in sequences:
        rows = [row[0].to(model.device) for row in streams(model, ids)]
        count += len(ids)
        for at in readout.blocks(len(ids)):
            final = readout(rows[-1][at]).log_softmax(-1)
            for row, stream in enumerate(rows[:-1]):
                for lens, hidden in (("logit", stream[at]), ("tuned", translators(row, stream[at]))):
                    sums[lens][row] += float(kl(final, readout(hidden).log_softmax(-1)).sum())
    return {lens: (values / count).tolist() for lens, values in sums.items()}


# ── on disk ──


@dataclass(frozen=True)
class Tuned:
    """A tuned lens that was trained: its translators, and `record`, which is `lens.json`."""

    translators: Translators
    record: dict


def folder_of(place: Path | str, workspace: Workspace) -> Path:
    """Where the tuned lens of a resolved model lies: in its run by revision, or, of no run's, in the workspace."""
    if isinstance(place, Path):
        if (place / "run.json").is_file():
            return place / "lens" / "main"
        if (place.parent.parent / "run.json").is_file():
            return place.parent.parent / "lens" / place.name
        name, identity = place.name, str(place.resolve())
    else:
        name = identity = place
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return workspace.root / "lens" / f"{safe}-{sha256_bytes(identity.encode())[:6]}"  # names of folders repeat


def save(
    folder: Path, translators: Translators, weights: str, corpus: dict, settings: Settings, held_out: dict
) -> Tuned:
    """The folder appears whole, in place of an older one.

    Args:
        weights: hash of the model's.
        corpus: name and hash of the snapshot.
        held_out: what `mean_kl` found, and on how many tokens.
    """
    record = {
        "schema": SCHEMA,
        "model": {"sha256": weights},
        "corpus": corpus,
        "settings": asdict(settings),
        "held_out": held_out,
    }
    with new_folder(folder) as unfinished:
        save_file({"matrices": translators.matrices, "biases": translators.biases}, unfinished / WEIGHTS)
        write_json(unfinished / RECORD, record)
    return Tuned(translators, record)


def read_tuned(folder: Path, model: nn.Module, ref: str) -> Tuned:
    """The tuned lens in a folder. Raises ValueError where there is none, or it is another model's.

    Args:
        ref: what the model is called, for the sentence.
    """
    how = f"train one with `python -m interpret.tuned_lens {ref}`"
    if not (folder / RECORD).is_file():
        raise ValueError(f"{ref} has no tuned lens yet: {how}")
    try:
        record, tensors = read_json(folder / RECORD), load_file(folder / WEIGHTS)
        trained_for, translators = record["model"]["sha256"], Translators(tensors["matrices"], tensors["biases"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"the tuned lens in {folder} is damaged: {how}") from error
    if trained_for != (now := model_sha256(model)):
        raise ValueError(
            f"the tuned lens of {ref} was trained for other weights ({trained_for[:12]}) than the model has "
            f"({now[:12]}): {how}"
        )
    return Tuned(translators, record)


def model_sha256(model: nn.Module) -> str:
    """One hash of all weights as they lie in memory, each by its name, type and shape; tied ones count once."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


if __name__ == "__main__":
    from interpret.tuned_lens_cli import main  # it imports this module

    cli(main)
