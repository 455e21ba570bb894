"""A sweep: recipes that differ in a few fields, each trained with several seeds, and the answer expected beforehand.

May import `hub` and `data`. The threshold is part of the content, and the content is the sweep's name: an expectation
that is changed after the results are known makes another sweep.
"""

import dataclasses
import json
from collections.abc import Mapping

import yaml

from data.workspace import sha256_json
from hub.registry import RESULTS
from training.launch import command_words
from training.recipe import merge

LOWER = ("train_loss", "val_loss", "perplexity", "bits_per_byte", "excess", "seconds")
HIGHER = ("accepted",)
LABELS = RESULTS | {
    "excess": "excess over the corpus's own entropy (nats per token)",
    "perplexity": "perplexity",
    "accepted": "sampled stories that are whole by the grammar, of 100",
    "seconds": "training time (seconds)",
}


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What is expected: the points with the fields of `better` beat those with the fields of `than` by `by` or more."""

    better: dict
    than: dict
    by: float


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for, its base resolved.

    Args:
        base: recipe parts that all points share.
        points: dotted recipe fields to values, one mapping for each point.
        metric: a figure of a finished run's result.
    """

    name: str
    question: str
    base: dict
    points: tuple[dict, ...]
    seeds: tuple[int, ...]
    metric: str
    threshold: Threshold | None = None

    @property
    def id(self) -> str:
        """The name and six digits of the content's hash: another content is another sweep."""
        return f"{self.name}-{sha256_json(self.content())[:6]}"

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER

    def content(self) -> dict:
        """All that decides the sweep, as plain values: reading it back gives the same sweep."""
        plain = dataclasses.asdict(self) | {"points": list(self.points), "seeds": list(self.seeds)}
        return plain if self.threshold else {name: value for name, value in plain.items() if name != "threshold"}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.content(), sort_keys=False, allow_unicode=True, width=110)

    def parts(self, point: Mapping, seed: int) -> dict:
        """The recipe's parts of one run."""
        return merge(self.base, unfolded(point), {"train": {"seed": seed}})

    def label(self, point: Mapping) -> str:
        """What tells a point from the others, short."""
        return self.spoken(point) or "as the base"

    def spoken(self, fields: Mapping) -> str:
        """Fields and values in words: a field by the last word of its name where that is clear, a text by itself.

        Where several fields are varied, a text says its field as well.
        """
        every = {field for one in self.points for field in one}
        last = [field.rpartition(".")[2] for field in every]

        def name(field: str) -> str:
            word = field.rpartition(".")[2]
            return word if last.count(word) == 1 else field

        return ", ".join(
            value if isinstance(value, str) and len(every) == 1 else f"{name(field)} {_word(value)}"
            for field, value in fields.items()
        )


def command_of(sweep: Sweep, point: Mapping, seed: int) -> list[str]:
    """What to type for one of its runs alone."""
    return command_words(sweep.parts(point, seed), run_name(sweep, point, seed))


def run_name(sweep: Sweep, point: Mapping, seed: int) -> str:
    """Says what it is in a list of runs: the sweep's name, the point's values, the seed."""
    values = "-".join(_word(value) for value in point.values())
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in values)
    return f"{sweep.name}-{kept[:20].strip('-') or 'base'}-s{seed}"


def unfolded(point: Mapping) -> dict:
    """{"model.rope_parameters.rope_theta": 5e5} -> {"model": {"rope_parameters": {"rope_theta": 5e5}}}."""
    parts: dict = {}
    for field, value in point.items():
        *path, last = field.split(".")
        place = parts
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return parts


def matches(point: Mapping, fields: Mapping) -> bool:
    return all(field in point and point[field] == value for field, value in fields.items())


def pairs(points: tuple[dict, ...], threshold: Threshold) -> list[tuple[dict, dict]]:
    """(better, than) points that are alike in every field that the threshold does not name."""
    named = threshold.better.keys() | threshold.than.keys()

    def rest(point: dict) -> dict:
        return {field: value for field, value in point.items() if field not in named}

    ours = [point for point in points if matches(point, threshold.better)]
    theirs = [point for point in points if matches(point, threshold.than)]
    return [(one, other) for one in ours for other in theirs if one != other and rest(one) == rest(other)]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
