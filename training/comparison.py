"""Two trainings of the same steps, compared bit for bit: what was measured, the weights, the optimizer.

May import `hub`. What a clock decides (tokens a second) is left out; every other number must be the same.
"""

import dataclasses
import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hub.checkpoints import STATE, step_of
from hub.metrics import METRICS, read_lines
from hub.runs import Run
from training import state
from training.initial import weights_sha256

CLOCKED = {"tokens_sec", "seconds", "mfu", "data_wait"}  # measures that no two runs share


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first thing that is not the same: at which step, which measure or tensor, and both values in words."""

    step: int
    name: str
    run: str
    replay: str


def rows(run: Run, first: int, until: int) -> dict[int, dict]:
    """What was measured at each step after `first`, up to `until`, without what a clock decides."""
    found: dict[int, dict] = {}
    for line in read_lines(run.path / METRICS):
        if first < line["step"] <= until:
            measured = {name: value for name, value in line.items() if name.partition("/")[0] not in CLOCKED}
            found.setdefault(line["step"], {}).update(measured)
    return found


def compare_rows(recorded: dict[int, dict], again: dict[int, dict]) -> Difference | None:
    """The first step and measure that differ. JSON keeps every bit of a float."""
    for step in sorted(recorded.keys() | again.keys()):
        one, other = recorded.get(step, {}), again.get(step, {})
        for name in {**one, **other}:
            if one.get(name) != other.get(name):
                return Difference(step, name, repr(one.get(name)), repr(other.get(name)))
    return None


def compare_checkpoint(path: Path, twin: Run) -> dict:
    """A checkpoint of the run and the replay's of the same step: hashes of weights and optimizer, and what differs."""
    step, again = step_of(path), twin.path / "checkpoints" / path.name
    found: dict = {"revision": path.name, "difference": None}
    if not again.is_dir():  # saved on request, between the replay's own
        return found | {"weights": None, "optimizer": None}
    pairs = {"weights": [weights_of(path), weights_of(again)]}
    if (path / STATE).is_dir():
        pairs["optimizer"] = [optimizer_of(path), optimizer_of(again)]
    for part, (one, other) in pairs.items():
        found[part] = {"sha256": weights_sha256(one), "tensors": len(one), "equal": True}
        for name in sorted(one.keys() | other.keys()):
            if digest(one.get(name)) != digest(other.get(name)):
                found[part]["equal"] = False
                far = distance(one.get(name), other.get(name))
                found["difference"] = found["difference"] or Difference(step, f"{part} {name}", *far)
                break
    return {"optimizer": None, **found}


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    return {name: value for file in sorted(checkpoint.glob("*.safetensors")) for name, value in load_file(file).items()}


def optimizer_of(checkpoint: Path) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter and name."""
    saved = state.read(checkpoint / STATE)["optimizer"]["state"]
    return {
        f"{parameter} {name}": torch.as_tensor(value)
        for parameter, values in saved.items()
        for name, value in values.items()
    }


def digest(value: Tensor | None) -> str | None:
    return None if value is None else hashlib.sha256(value.contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def distance(one: Tensor | None, other: Tensor | None) -> tuple[str, str]:
    if one is None or other is None:
        return ("there" if one is not None else "missing"), ("there" if other is not None else "missing")
    far = (one.double() - other.double()).abs().max().item()
    return f"sha256 {digest(one)[:12]}", f"sha256 {digest(other)[:12]}, {far:.3g} off at most"
