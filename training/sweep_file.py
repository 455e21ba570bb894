"""The file of a sweep: what may stand in it, and what is wrong with it in one sentence.

May import `hub` and `data`. What can be known to be wrong with any of its recipes is said here, before a run is made.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from data.console import nearest, one_line
from data.workspace import Workspace, check_name
from training.launch import check, located
from training.recipe import Recipe, build_recipe, checked_parts, find_recipe, parse_value, read_recipe
from training.sweep_plan import HIGHER, LOWER, Sweep, Threshold, matches, pairs, unfolded

FIELDS = ("name", "question", "base", "grid", "points", "seeds", "metric", "threshold")
MOST = 300  # runs of one sweep; more are a slip of the keyboard
LONGEST = 20_000  # characters of a file
NAME_LONGEST = 30  # characters of a sweep's name, which is the beginning of its runs' names
DEEPEST = 30  # brackets in brackets, which the YAML library reads in quadratic time


def read_sweep(path: Path, workspace: Workspace) -> Sweep:
    """A sweep's file. Raises ValueError with one sentence for whatever can be known to be wrong beforehand."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a sweep's file: {one_line(error)}") from error
    return parse_sweep(text, workspace, str(path))


def parse_sweep(
    text: str,
    workspace: Workspace,
    where: str = "the sweep",
    read_base: Callable[[str], dict] | None = None,
    locate: Callable[[dict], dict] | None = None,
) -> Sweep:
    """The same from the file's text.

    Args:
        where: names it in messages.
        read_base: the parts of the recipe that the file names; by default, as the command line finds it.
        locate: recipe parts with their files and folders as absolute paths, for a process that stands elsewhere; what
            may not be read is refused here.
    """
    read_base = read_base or (lambda name: read_recipe(find_recipe(name, workspace)))
    locate = locate or (lambda parts: located(parts, workspace))
    if len(text) > LONGEST or _depth(text) > DEEPEST:
        raise ValueError(f"{where} is too long or too deeply nested: {LONGEST:,} characters, {DEEPEST} levels at most")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("aliases (*name) are not for sweeps")  # a few of them unfold to gigabytes
        content = parse_value(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{where} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} should hold `key: value` lines: {', '.join(FIELDS)}")
    for key in content:
        if key not in FIELDS:
            raise ValueError(f"{where} has an unknown key {key!r}; {nearest(str(key), FIELDS)}")
    points = tuple(_located(point, locate) for point in _points(content))
    sweep = Sweep(
        name=_name(content.get("name")),
        question=_text(content.get("question"), "question"),
        base=locate(_base(content.get("base"), read_base)),
        points=points,
        seeds=_seeds(content.get("seeds", 3)),
        metric=_metric(content.get("metric", "val_loss")),
        threshold=_threshold(content.get("threshold"), points),
    )
    if (runs := len(sweep.points) * len(sweep.seeds)) > MOST:
        raise ValueError(f"{where} asks for {runs:,} runs: {MOST:,} at most")
    check_points(sweep, workspace)
    return sweep


def check_points(sweep: Sweep, workspace: Workspace) -> list[Recipe]:
    """The recipe of each point, with the first seed. Raises ValueError that names the point that cannot be."""
    recipes = []
    for point in sweep.points:
        try:
            recipes.append(build_recipe(sweep.parts(point, sweep.seeds[0])))
            check(recipes[-1], workspace)
        except ValueError as error:
            raise ValueError(f"point {sweep.label(point)!r} cannot be trained: {one_line(error)}") from error
    return recipes


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > NAME_LONGEST:
        raise ValueError(f"a sweep needs a name of at most {NAME_LONGEST} characters, such as `name: rates`")
    return check_name(value, "sweep name")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"a sweep needs a {what}, in words: what is to be found out?")
    return " ".join(value.split())


def _base(value: object, read_base: Callable[[str], dict]) -> dict:
    """Recipe parts from a recipe's name, or as they stand in the file."""
    if isinstance(value, str):
        value = read_base(value)
    return checked_parts({} if value is None else value, "the sweep's base")


def _located(point: dict, locate: Callable[[dict], dict]) -> dict:
    data = locate(unfolded(point)).get("data", {})
    return point | {f"data.{name}": value for name, value in data.items() if f"data.{name}" in point}


def _points(content: Mapping) -> tuple[dict, ...]:
    if ("grid" in content) == ("points" in content):
        raise ValueError("a sweep needs `grid` (fields with lists of values) or `points` (a list), one of the two")
    if "points" in content:
        points = content["points"]
        if not isinstance(points, list) or not points or not all(isinstance(point, dict) for point in points):
            raise ValueError("points should be a list of mappings, such as [{model.hidden_act: relu}]")
    else:
        points = _product(content["grid"])
    for field in {field for point in points for field in point}:
        section, dot, name = str(field).partition(".")
        if not (dot and name and section in ("data", "model", "train")):
            raise ValueError(f"{field!r} is no recipe field: they look like model.hidden_act or train.learning_rate")
        if field == "train.seed":
            raise ValueError("train.seed is no field of a grid: `seeds` says how often each point is trained")
    if len({json.dumps(point, sort_keys=True, default=str) for point in points}) < len(points):
        raise ValueError("two points of the sweep are the same: each is trained with every seed anyway")
    return tuple(points)


def _product(grid: object) -> list[dict]:
    usable = isinstance(grid, dict) and grid and all(isinstance(values, list) and values for values in grid.values())
    if not usable:
        raise ValueError("grid should hold fields with lists of values, such as `model.hidden_act: [relu, gelu]`")
    if math.prod(map(len, grid.values())) > MOST:
        raise ValueError(f"the grid has {math.prod(map(len, grid.values())):,} points: {MOST:,} at most")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _seeds(value: object) -> tuple[int, ...]:
    seeds = list(range(value)) if type(value) is int and 0 < value <= MOST else value
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise ValueError("seeds should be how many there are, such as 3, or a list of them, such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands twice in the list: it would give the same run again")
    return tuple(seeds)


def _metric(value: object) -> str:
    if value not in LOWER + HIGHER:
        raise ValueError(f"metric {value!r} is no figure of a finished run; {nearest(str(value), LOWER + HIGHER)}")
    return value


def _threshold(value: object, points: tuple[dict, ...]) -> Threshold | None:
    """Raises ValueError where it compares what cannot be paired."""
    if value is None:
        return None
    example = "such as {better: {model.hidden_act: relu2}, than: {model.hidden_act: relu}, by: 0.01}"
    if not isinstance(value, dict) or set(value) != {"better", "than", "by"}:
        raise ValueError(f"threshold should hold better, than and by, {example}")
    better, than, by = value["better"], value["than"], value["by"]
    if type(by) not in (int, float) or not math.isfinite(by) or by < 0:
        raise ValueError("threshold.by should be the least difference that counts, 0 or more, in the metric's unit")
    for side, fields in (("better", better), ("than", than)):
        if not isinstance(fields, dict) or not fields or not any(matches(point, fields) for point in points):
            raise ValueError(f"threshold.{side} fits no point of the sweep: it should hold fields of one, {example}")
    threshold = Threshold(better, than, float(by))
    if not pairs(points, threshold):
        raise ValueError("threshold compares points that differ in more than its own fields: nothing can be paired")
    return threshold


def _depth(text: str) -> int:
    steps = itertools.accumulate((letter in "[{") - (letter in "]}") for letter in text)
    return max(max(steps, default=0), 0)
