"""What the diagnose panel judges: one run's measurements, ready to be asked for, and the shape of a rule.

May import `hub` and `data`. The rules stand beside this file, `findings_*.py`; `training.diagnose` has their table. A
page asks once a second, so that everything here is read as it lies: no model, no counting of a corpus.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from data.tokens import Tokens
from data.workspace import read_json
from hub.checkpoints import checkpoints, step_of
from hub.live import read
from hub.runs import LIVE, Run, status_of
from training.recipe import Recipe, build_recipe, read_recipe
from training.schedule import rate_at

LOOKED = 20_000  # newest rows that are judged: a page has milliseconds
ENOUGH = 100  # steps before which nothing can be said of a whole run
RECENT = 50  # steps that make "now"
COUNTED = 1 << 20  # tokens in which the frequencies of a vocabulary are counted
SAMPLED = 256  # places at which a schedule is read

Curve = tuple[np.ndarray, np.ndarray]
"""(N,) steps, (N,) finite values."""


@dataclass(frozen=True)
class Seen:
    """What a rule saw; the fields are those of `hub.findings.Finding`.

    Attributes:
        fresh: the change is of no use behind weights that are spoilt already, or it makes another architecture: the
            run should begin anew with it.
        before: fork at the newest checkpoint before this step, the newest of all where it is None.
        look: words of a command that shows more, where no recipe mends it.
    """

    severity: str
    seen: str
    threshold: str
    advice: str
    evidence: list[tuple[str, int | None, float]] = field(default_factory=list)
    change: dict | None = None
    fresh: bool = False
    before: int | None = None
    look: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A judgement: `judge` returns what it saw, None where all is well or not enough is known."""

    name: str
    title: str
    source: str
    judge: Callable[["Case"], Seen | None]


class Case:
    """One run at one moment. Raises ValueError for a run that was not trained from a text.

    Args:
        probe: what `training.findings_model.probe` said of its newest model, where it was asked.
        overlap: shares of the validation documents that training has too, where they were counted.
    """

    def __init__(self, run: Run, probe: dict | None = None, overlap: dict | None = None):
        self.run, self.probe, self.overlap = run, probe, overlap
        self.info = run.info()
        if self.info["kind"] != "pretrain":
            raise ValueError(f"{run.id} is of kind {self.info['kind']}: the rules are about a pretraining alone")
        self.status = status_of(self.info)
        self.columns = read(run.path).columns
        self.steps = np.array(self.columns["step"][-LOOKED:], dtype=float)
        self._curves: dict[str, Curve] = {}

    @cached_property
    def recipe(self) -> Recipe:
        path = self.run.path / "recipe.yaml"
        return _recipe(path, path.stat().st_mtime_ns)

    @property
    def train(self):
        return self.recipe.train

    @property
    def step(self) -> int:
        return int(self.steps[-1]) if len(self.steps) else 0

    @property
    def planned(self) -> int:
        """Steps of the whole run."""
        return max(self.train.steps or 0, self.step)

    @property
    def ended(self) -> bool:
        return self.status not in LIVE

    @property
    def from_scratch(self) -> bool:
        """Whether the weights began as random numbers: of others a rule about learning everything says nothing."""
        return self.info.get("kind") == "pretrain" and not self.info["inputs"].get("base")

    @cached_property
    def config(self) -> dict:
        """The model's config.json, empty before the first checkpoint."""
        try:
            return read_json(self.run.path / "config.json")
        except (OSError, ValueError):
            return {}

    @property
    def width(self) -> int | None:
        return self.config.get("hidden_size") or self.config.get("n_embd")

    @cached_property
    def tokens(self) -> Tokens | None:
        """The packed tokens the run was trained on, where they are still here."""
        inputs = self.info["inputs"]
        wanted = tuple((inputs.get(kind) or {}).get("sha256") for kind in ("corpus", "tokenizer"))
        return None if None in wanted else _tokens(self.run.path.absolute().parents[1] / "tokens", wanted)

    @property
    def floor(self) -> float | None:
        """Entropy of the validation split in nats per token, where the corpus knows it."""
        return self.tokens and self.tokens.meta["splits"]["validation"].get("floor")

    @property
    def unigram(self) -> float | None:
        """Entropy of single tokens in nats: the loss of a model that knows frequencies and nothing else."""
        return self.tokens and _unigram(self.tokens.path, self.tokens.sha256)

    def curve(self, name: str) -> Curve:
        """A column's steps and finite values, of the newest rows."""
        if name not in self._curves:
            try:
                values = np.array(self.columns[name][-LOOKED:], dtype=float)
            except (KeyError, TypeError, ValueError):  # not measured, or no numbers
                values = np.full(len(self.steps), np.nan)
            known = np.isfinite(values)
            self._curves[name] = self.steps[known], values[known]
        return self._curves[name]

    def last(self, name: str) -> tuple[int, float] | None:
        """The newest (step, value)."""
        steps, values = self.curve(name)
        return (int(steps[-1]), float(values[-1])) if len(steps) else None

    def parts(self, name: str) -> dict[str, list[tuple[int, float | list]]]:
        """By layer or matrix the (step, value) that were measured, oldest first; a list has a value for each head."""
        found, rows = {}, None
        for column, values in self.columns.items():
            if not column.startswith(f"{name}/"):
                continue
            if rows is None:  # all parts are measured at the same steps
                rows = [i for i, value in enumerate(values) if value is not None]
            steps = self.columns["step"]
            measured = [(steps[i], values[i]) for i in rows if values[i] is not None]
            if measured:
                found[column.partition("/")[2]] = measured
        return found

    def loss_at(self, share: float) -> float | None:
        """Training loss around a share of the steps taken, its noise averaged away."""
        _, losses = self.curve("train_loss")
        if len(losses) < ENOUGH:
            return None
        width = max(len(losses) // 20, 10)
        middle = round(share * (len(losses) - 1))
        begin = min(max(middle - width // 2, 0), len(losses) - width)
        return float(losses[begin : begin + width].mean())

    def rate_ahead(self) -> float:
        """Steps still to come, each counted as the share of the peak learning rate it has."""
        if self.ended or self.step >= self.planned:
            return 0.0
        places = np.linspace(self.step, self.planned - 1, SAMPLED).astype(int)
        return float(np.mean([rate_at(place, self.train) for place in places.tolist()]) * (self.planned - self.step))

    def rate(self, step: int) -> float:
        """The share of its peak that the learning rate had when `step` was taken."""
        return rate_at(max(step - 1, 0), self.train)

    def checkpoint_before(self, step: int | None) -> Path | None:
        """The newest complete checkpoint, taken before `step` where one is given."""
        found = [path for path in checkpoints(self.run) if step is None or step_of(path) < step]
        return found[-1] if found else None


def rounded(value: float) -> float:
    """One significant digit: a rate that a person would have typed."""
    return float(f"{value:.0e}")


def scaled_rates(train, factor: float) -> dict:
    """The recipe's learning rates times a factor, as parts of a recipe."""
    rates = {"learning_rate": rounded(train.learning_rate * factor)}
    if train.embedding_learning_rate is not None:
        rates["embedding_learning_rate"] = rounded(train.embedding_learning_rate * factor)
    return {"train": rates}


@lru_cache(maxsize=64)
def _recipe(path: Path, stamp: int) -> Recipe:
    return build_recipe(read_recipe(path))


@lru_cache(maxsize=64)
def _tokens(room: Path, wanted: tuple[str, str]) -> Tokens | None:
    for path in room.glob("*/meta.json"):
        try:
            meta = read_json(path)
            if (meta["corpus"]["sha256"], meta["tokenizer"]["sha256"]) == wanted:
                return Tokens(path.parent, meta)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being made, or made by another version
    return None


@lru_cache(maxsize=64)
def _unigram(path: Path, stamp: str) -> float:
    ids = Tokens(path, read_json(path / "meta.json")).split("train")[:COUNTED]
    counts = np.bincount(np.asarray(ids))
    shares = counts[counts > 0] / len(ids)
    return float(-(shares * np.log(shares)).sum())
