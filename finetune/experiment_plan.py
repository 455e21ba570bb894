"""What an experiment will train: settings that differ in a few recipe fields, each with several seeds.

May import `training` and `data`. A plan is plain values; its digits are a hash of them, so that the same command finds
the same experiment again, and another one is another folder.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import yaml

from data.workspace import check_name, sha256_json
from finetune.recipe import TuneRecipe, build_recipe
from training.launch import flags_of
from training.recipe import merge

SMALL_BASE = "primer"  # the lab's own small Qwen3, trained in the lab: its recipe is `qwen3-primer`
SEEDS = 3
# What all settings of the small size share. A run takes 25 s of one CPU core; with NF4 31 s were measured, to save 3 MB
# of a base that has 4.
SMALL = {
    "data": {"source": "stories", "documents": 500},
    "model": {"quantization": "none"},
    "train": {
        "steps": 40,
        "batch_size": 8,
        "context": 512,
        "learning_rate": 5e-3,
        "warmup_steps": 4,
        "eval_sequences": 16,
        "threads": 1,
    },
}
# With any other base the recipe's own defaults hold, but for the length.
LARGE = {"train": {"steps": 200}}
EVALUATIONS = 8  # in the course of a run: a curve that turns must be seen to turn


class Setting(NamedTuple):
    """One line of an experiment.

    Args:
        key: short, in the names of its runs.
        label: what it is called in tables and figures.
        parts: the recipe fields in which it differs from what all share.
    """

    key: str
    label: str
    parts: dict


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment as it was asked for, and what that comes to.

    Args:
        experiment: which one, by its module's name: `loss_curve`.
        base: a run, a folder or a Hub id; None: the lab's own small Qwen3.
        data: a source of examples; None: the default one.
        given: recipe parts that hold for all settings, as the user gave them.
        options: what the experiment wants to know besides.
        parts: the recipe parts that all settings share.
    """

    experiment: str
    base: str | None
    data: str | None
    given: dict
    options: dict
    seeds: tuple[int, ...]
    parts: dict
    settings: tuple[Setting, ...]

    @property
    def id(self) -> str:
        """The experiment's name and six digits of the plan's hash."""
        return f"{self.experiment.replace('_', '-')}-{sha256_json(self.content())[:6]}"

    @property
    def command(self) -> list[str]:
        """What to type for it."""
        words = ["python", "-m", f"finetune.{self.experiment}", "--seeds", str(len(self.seeds))]
        for flag, value in {"base": self.base, "data": self.data, **self.options}.items():
            words += [] if value is None else [f"--{flag}", value]
        return words + flags_of(self.given)

    def content(self) -> dict:
        """All that decides the experiment, as plain values."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"settings": [one._asdict() for one in self.settings], "seeds": list(self.seeds)}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.content(), sort_keys=False, allow_unicode=True, width=110)

    @classmethod
    def from_yaml(cls, text: str) -> "Plan":
        """What `to_yaml` wrote."""
        content = yaml.safe_load(text)
        settings = tuple(Setting(**one) for one in content.pop("settings"))
        return cls(settings=settings, seeds=tuple(content.pop("seeds")), **content)

    def recipe_of(self, number: int, seed: int, base: str) -> dict:
        """The recipe's parts of one run."""
        return merge(self.parts, self.settings[number].parts, {"model": {"base": base}, "train": {"seed": seed}})

    def run_name(self, number: int, seed: int) -> str:
        """Says what it is in a list of runs."""
        return f"{self.experiment.replace('_', '-')}-{self.settings[number].key}-s{seed}"


def rate_of(parts: dict) -> float:
    """The peak learning rate of the shared parts, the recipe's default where they have none."""
    return parts["train"].get("learning_rate") or TuneRecipe().learning_rate


def shared_parts(base: str | None, data: str | None, given: Mapping, adjust: Callable[[dict], dict]) -> dict:
    """The recipe parts of all settings: those of the size, what the experiment adjusts, and what the user said.

    Args:
        given: parts from recipe flags.
        adjust: from all others, further parts under those that the user gave.

    Raises ValueError for what the experiment has to decide itself.
    """
    for part, field, instead in (
        ("model", "base", "--base MODEL"),
        ("train", "epochs", "--train.steps N: settings are compared at the same number of steps"),
        ("train", "seed", "--seeds N"),
    ):
        if field in given.get(part, {}):
            raise ValueError(f"an experiment takes no --{part}.{field}: say {instead}")
    source = {"data": {"source": data}} if data else {}
    parts = merge(SMALL if base is None else LARGE, source, given)
    steps = parts["train"]["steps"]
    if type(steps) is not int or steps < EVALUATIONS:
        raise ValueError(f"--train.steps should be a whole number of at least {EVALUATIONS}, not {steps!r}")
    # nothing but the losses is looked at, so neither texts nor checkpoints are made on the way
    measured = {"eval_every": steps // EVALUATIONS, "sample_every": steps, "save_every": steps, "diagnose_every": steps}
    measured = {"train": {"checks": "skip"} | measured}
    return merge(measured, SMALL if base is None else LARGE, source, adjust(parts), given)


def check_plan(plan: Plan) -> Plan:
    """The plan itself. Raises ValueError with one sentence where its runs could not be made."""
    if not plan.seeds:
        raise ValueError("--seeds should be at least 1")
    for number in range(len(plan.settings)):
        build_recipe(plan.recipe_of(number, 0, plan.base or SMALL_BASE))
        check_name(plan.run_name(number, plan.seeds[-1]), "run name")
    return plan
