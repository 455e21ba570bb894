"""Steering: a direction added to what a layer writes, while the model continues a text.

Of ours here `interpret.prompt`, `record`, `sampling`, `sites`, `structure` and `writing`. The direction is the
difference of two sets of texts' mean activations (arXiv:2312.06681, arXiv:2308.10248), or one from a file, such as a
probe's.

Shapes: T tokens, C hidden size, N coefficients, K tokens whose probability is told, V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.console import cli, nearest
from interpret.ablation import rows_at_once
from interpret.prompt import read_prompt
from interpret.record import check_length, record
from interpret.sampling import Sampling
from interpret.sites import Tap, tapped
from interpret.structure import structure
from interpret.writing import Token, prompt_ids, spell, write

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")  # those as wide as the residual stream
NEW_TOKENS = 60
COEFFICIENT = 2.0  # how many differences of the means are added by default: more soon drowns the stream
STEPS = 17  # coefficients from -c to c, 0 among them
TOLD = 6  # next tokens whose probability moves most


@dataclass(frozen=True)
class Direction:
    """A vector (C,) to be added at one site of one layer; `origin` says in words what it is."""

    site: str
    layer: int
    vector: Tensor
    origin: str

    @property
    def name(self) -> str:
        return f"blocks.{self.layer}.{self.site}"

    def added(self, coefficients: Tensor) -> dict[str, Tap]:
        """Edits that add the vector to every token, with one coefficient for each row of the batch."""

        def tap(tensor: Tensor) -> Tensor:  # (B, T, C)
            return tensor + coefficients.to(tensor)[:, None, None] * self.vector.to(tensor)

        return {self.name: tap}


@dataclass(frozen=True)
class Steered:
    """A text with and without a direction, and what more and less of it does to the next token.

    `tokens` (K,) are those whose probability behind the prompt moves most over `coefficients` (N,);
    `probabilities` is (N, K). `size` is the norm of what is added, `stream` the mean norm of what it is added to.
    """

    prompt: str
    direction: Direction
    coefficient: float
    plain: list[Token]
    steered: list[Token]
    coefficients: np.ndarray
    tokens: list[str]
    probabilities: np.ndarray
    size: float
    stream: float


def difference_of_means(
    model: nn.Module,
    tokenizer,
    towards: Collection[str],
    away: Collection[str],
    site: str = "resid_post",
    layer: int | None = None,
) -> Direction:
    """The mean activation of the texts `towards`, minus that of the texts `away`, each text counting the same.

    A text's first token is left out: many models keep a vector there that says nothing of the text
    (arXiv:2309.17453).

    Args:
        site: of SITES.
        layer: the middle one by default.

    Raises ValueError where there is nothing to compare, or no such site or layer.
    """
    layer = check_place(model, site, layer)
    if not towards or not away:
        raise ValueError("give at least one text to steer towards and one to steer away from")
    means = []
    for texts in (towards, away):
        name = f"blocks.{layer}.{site}"
        found = [record(model, read_prompt(model, tokenizer, text).ids, [name])[name][0, 1:] for text in texts]
        means.append(torch.stack([each.double().mean(0) for each in found]).mean(0))
    vector = (means[0] - means[1]).float()
    if not vector.any():
        raise ValueError("both sets of texts have the same mean activation: there is no direction between them")
    return Direction(site, layer, vector, f"the mean of {len(towards)} texts minus that of {len(away)}")


def read_direction(model: nn.Module, path: Path, site: str = "resid_post", layer: int | None = None) -> Direction:
    """A direction from an .npz: `direction` (C,), or (L, C) with one for each layer.

    Raises ValueError for a file that holds no such thing, or one for a model of another width.
    """
    layer = check_place(model, site, layer)
    try:
        with np.load(path, allow_pickle=False) as file:
            vector = np.asarray(file["direction"], dtype=np.float32)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no direction: an .npz with an array `direction` is needed") from error
    parts = structure(model)
    vector = vector[layer] if vector.ndim == 2 and len(vector) == len(parts.layers) else vector
    if vector.shape != (parts.hidden_size,):
        raise ValueError(
            f"{path} holds a direction of shape {vector.shape}: this model's are ({parts.hidden_size},), or "
            f"({len(parts.layers)}, {parts.hidden_size}) with one for each layer"
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"the direction in {path} is zero, or holds what is no number")
    return Direction(site, layer, torch.from_numpy(vector), Path(path).name)


def check_place(model: nn.Module, site: str, layer: int | None) -> int:
    """The layer's number. Raises ValueError for a site or a layer that is not there."""
    if site not in SITES:
        raise ValueError(f"{site!r} is no site of the residual stream; {nearest(site, SITES)}")
    count = len(structure(model).layers)
    layer = count // 2 if layer is None else layer
    if not 0 <= layer < count:
        raise ValueError(f"there is no layer {layer}: this model's are 0 to {count - 1}")
    return layer


def steer(
    model: nn.Module,
    tokenizer,
    prompt: str,
    direction: Direction,
    coefficient: float = COEFFICIENT,
    sampling: Sampling | None = None,
    max_new_tokens: int = NEW_TOKENS,
    seed: int = 0,
) -> Steered:
    """Continue `prompt` twice with the same seed: as the model is, and with the direction added at every token.

    Raises ValueError for a coefficient of 0 or none that is a number.
    """
    if not np.isfinite(coefficient) or coefficient == 0:
        raise ValueError(f"coefficient={coefficient} must be a number other than 0, which would add nothing")
    settings = (sampling or Sampling(), max_new_tokens, seed)
    plain = list(write(model, tokenizer, prompt, *settings))
    with tapped(model, direction.added(torch.tensor([coefficient]))):
        steered = list(write(model, tokenizer, prompt, *settings))
    ids = prompt_ids(model, tokenizer, prompt)
    check_length(model, len(ids))
    coefficients = torch.linspace(-abs(coefficient), abs(coefficient), STEPS)
    probabilities = next_probabilities(model, ids, direction, coefficients)  # (N, V)
    moved = (probabilities.amax(0) - probabilities.amin(0)).topk(min(TOLD, probabilities.shape[1])).indices
    there = record(model, ids, [direction.name])[direction.name][0]  # (T, C)
    return Steered(
        prompt=prompt,
        direction=direction,
        coefficient=coefficient,
        plain=plain,
        steered=steered,
        coefficients=coefficients.numpy(),
        tokens=[spell(tokenizer, int(i)) for i in moved],
        probabilities=probabilities[:, moved].numpy(),
        size=abs(coefficient) * float(direction.vector.norm()),
        stream=float(there.float().norm(dim=-1).mean()),
    )


def next_probabilities(model: nn.Module, ids: list[int], direction: Direction, coefficients: Tensor) -> Tensor:
    """The next token's distribution behind `ids` with each coefficient, (N, V)."""
    found = []
    for some in coefficients.split(rows_at_once(model, len(ids))):
        batch = torch.tensor(ids).expand(len(some), -1)
        logits = record(model, batch, ["logits"], positions=[-1], edits=direction.added(some))["logits"]
        found.append(logits[:, -1].float().softmax(-1))
    return torch.cat(found)


if __name__ == "__main__":
    from interpret.steering_cli import main  # it imports this module

    cli(main)
