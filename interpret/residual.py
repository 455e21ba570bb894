"""The residual stream on one prompt: how long it is, what each part adds, what resembles what, and any site's values.

May import `data`; of ours here `interpret.prompt`, `record` and `sites`. `interpret.attribution` beside it says what
the parts add to a logit. Works on any causal language model that `hub.models` opened, and gives plain values, so that
the command and a page can show the same. docs/residual.md has the formulas.

Shapes: L layers, T tokens, C hidden size. Place l of the stream is what enters layer l; place L leaves the last one.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.console import cli
from interpret.prompt import MAX_TOKENS, read_prompt
from interpret.record import QUERIES, check_positions, record
from interpret.sites import FULL, expand
from interpret.structure import structure

ADDS_TO = {  # part: where what it adds is, and the stream that it adds to
    "attention": ("attn_out", "resid_pre"),
    "feed-forward": ("mlp_out", "resid_mid"),
}
NEAR_ZERO = 0.01  # of the root mean square; of normally distributed values 0.8 % are nearer to 0
BINS = 60
CENTRAL = 0.998  # share of the values that a histogram spans: a few outliers would leave one bar of the rest


@dataclass(frozen=True)
class Stream:
    """One prompt's residual stream in one model.

    `vectors` is the stream at each place (L+1, T, C) in float32; `added` has the norms of what each part of ADDS_TO
    adds, `cosines` the cosines of that with the stream it is added to, (L, T) each.
    """

    tokens: list[str]
    ids: list[int]
    vectors: Tensor
    added: dict[str, np.ndarray]
    cosines: dict[str, np.ndarray]
    note: str

    @property
    def layers(self) -> int:
        return len(self.vectors) - 1

    @property
    def norms(self) -> np.ndarray:
        """Euclidean, (L+1, T)."""
        return self.vectors.norm(dim=-1).numpy()

    @property
    def rms(self) -> np.ndarray:
        """The typical size of one number of the stream, (L+1, T)."""
        return self.norms / self.vectors.shape[-1] ** 0.5

    def between_tokens(self, place: int) -> np.ndarray:
        """Cosines (T, T) between the stream of the prompt's tokens at one place."""
        if not 0 <= place <= self.layers:
            raise ValueError(
                f"there is no layer {place}: the stream enters layers 0 to {self.layers - 1}, and {self.layers} stands "
                "for what leaves the last one"
            )
        return _cosines(self.vectors[place])

    def between_layers(self, position: int) -> np.ndarray:
        """Cosines (L+1, L+1) between the places of one token's stream; negative positions count from the end."""
        return _cosines(self.vectors[:, int(check_positions([position], len(self.ids)))])

    @property
    def alike(self) -> np.ndarray:
        """Mean cosine between different tokens at each place, (L+1,); near 1 all point one way (arXiv:1909.00512)."""
        T = len(self.ids)
        directions = F.normalize(self.vectors.double(), dim=-1)
        sums = directions.sum(1).square().sum(-1) - directions.square().sum((1, 2))  # all pairs but those with itself
        return (sums / (T * (T - 1))).numpy()


def read_stream(model: nn.Module, tokenizer, prompt: str, max_tokens: int = MAX_TOKENS) -> Stream:
    """The stream of `prompt`, behind the token that begins every text where there is one."""
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    last = len(structure(model).layers) - 1
    sites = [site for pair in ADDS_TO.values() for site in pair]
    found = record(model, read.ids, [*sites, f"blocks.{last}.resid_post"])
    found = {name: tensor[0].float() for name, tensor in found.items()}  # (T, C) each

    def every(site: str) -> Tensor:
        return torch.stack([found[f"blocks.{layer}.{site}"] for layer in range(last + 1)])  # (L, T, C)

    added, cosines = {}, {}
    for part, (out, before) in ADDS_TO.items():
        written = every(out)
        added[part] = written.norm(dim=-1).numpy()
        cosines[part] = F.cosine_similarity(written, every(before), dim=-1).numpy()
    vectors = torch.cat([every("resid_pre"), found[f"blocks.{last}.resid_post"][None]])
    return Stream(read.tokens, read.ids, vectors, added, cosines, read.note)


def _cosines(vectors: Tensor) -> np.ndarray:
    """Between all pairs of (N, C)."""
    directions = F.normalize(vectors.double(), dim=-1)
    return (directions @ directions.T).numpy()


# ── the values of a site ──


@dataclass(frozen=True)
class Statistics:
    """Of one site's values.

    `kurtosis` is the fourth central moment over the variance's square: 3 for a normal distribution, more where few
    values are far out; NaN where all values are equal. `largest` is the value farthest from 0, `at` its place in the
    site's shape, and `near_zero` the share of values within NEAR_ZERO of the root mean square.
    """

    count: int
    mean: float
    std: float
    kurtosis: float
    largest: float
    at: tuple[int, ...]
    near_zero: float


@dataclass(frozen=True)
class Values:
    """A site's statistics by full name, and the histogram of all its values together.

    `edges` (BINS+1,) span the CENTRAL share of the values, `counts` (BINS,) lie between them, `outside` beyond.
    """

    site: str
    statistics: dict[str, Statistics]
    edges: np.ndarray
    counts: np.ndarray
    outside: int
    note: str


def read_values(model: nn.Module, tokenizer, prompt: str, site: str, max_tokens: int = MAX_TOKENS) -> Values:
    """The values of one site: `blocks.3.mlp_post` in one layer, `mlp_post` in all of them.

    Of attention's scores and weights only those of tokens that may be seen count. Raises ValueError, with the nearest,
    for a site that does not exist.
    """
    read = read_prompt(model, tokenizer, prompt, max_tokens)
    names = expand([site], len(structure(model).layers))
    patterns = [name for name in names if name.endswith("pattern")]
    masks = [name.replace("pattern", "attn_scores") for name in patterns]  # -inf where nothing may be seen
    found = {name: tensor[0].float().numpy() for name, tensor in record(model, read.ids, [*names, *masks]).items()}
    for name, mask in zip(patterns, masks, strict=True):
        found[name] = np.where(np.isfinite(found.pop(mask)), found[name], -np.inf)
    values = np.concatenate([_seen(name, found[name]) for name in names])
    if not np.isfinite(values).all():
        raise ValueError(f"{site} holds values that are not numbers: training diverged, or the weights are damaged")
    tail = (1 - CENTRAL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    counts, edges = np.histogram(values, BINS, (low, high))
    told = {name: statistics(found[name], _seen(name, found[name])) for name in names}
    return Values(site, told, edges, counts, int(len(values) - counts.sum()), read.note)


def statistics(tensor: np.ndarray, seen: np.ndarray) -> Statistics:
    """Of the values `seen` (N,) in a site's tensor of any shape."""
    seen = seen.astype(np.float64)
    away = seen - seen.mean()
    variance = float((away**2).mean())
    farthest = np.where(np.isfinite(tensor), np.abs(tensor), -1).argmax()
    at = np.unravel_index(farthest, tensor.shape)
    return Statistics(
        count=len(seen),
        mean=float(seen.mean()),
        std=variance**0.5,
        kurtosis=float((away**4).mean()) / variance**2 if variance > 0 else float("nan"),
        largest=float(tensor[at]),
        at=tuple(map(int, at)),
        near_zero=float((np.abs(seen) <= NEAR_ZERO * (seen**2).mean() ** 0.5).mean()),
    )


def _seen(name: str, tensor: np.ndarray) -> np.ndarray:
    """The values that count, (N,): all but those of attention to what may not be seen."""
    full = FULL.fullmatch(name)
    flat = tensor.reshape(-1)
    return flat[flat != -np.inf] if full and full[2] in QUERIES else flat


if __name__ == "__main__":
    from interpret.residual_cli import main  # it imports this module

    cli(main)
