"""What a sweep found: means over seeds, their intervals, and the verdict on what was expected beforehand.

May import `hub` and `data`. Plain numbers in, plain numbers out; the table and the sentence are made from those.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from training.sweep_plan import LABELS, Sweep, pairs

CONFIDENCE = 0.95


def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """What Student's t with `df` degrees of freedom stays between, in both directions, with that probability."""
    low, high = 0.0, 1.0
    while _inside(high, df) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, df) < confidence else (low, middle)
    return high


def _inside(t: float, df: int) -> float:
    """P(|T| < t), as a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(df))
    odd, square = df % 2, math.cos(angle) ** 2
    term, total = math.cos(angle) ** odd, 0.0
    for i in range(odd, df - 1, 2):
        total += term
        term *= (i + 1) / (i + 2) * square
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def mean_and_interval(values: Sequence[float]) -> tuple[float | None, list[float] | None]:
    """(mean, its 95 % interval by Student's t); no interval of one value, nothing of none."""
    if not values:
        return None, None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def results(sweep: Sweep, records: Mapping[tuple[int, int], Mapping]) -> dict:
    """All that is known of a sweep so far.

    Args:
        records: (number of the point, seed) to what there is of its run: `run`, `status`, `error` and its `result`.
    """
    points = []
    for number, point in enumerate(sweep.points):
        runs = [_run(sweep, seed, records.get((number, seed))) for seed in sweep.seeds]
        values = [run["value"] for run in runs if run["value"] is not None]
        mean, interval = mean_and_interval(values)
        label = sweep.label(point)
        points.append(
            {"label": label, "point": point, "n": len(values), "mean": mean, "interval": interval, "runs": runs}
        )
    every = [run for point in points for run in point["runs"]]
    return {
        "sweep": sweep.id,
        "question": sweep.question,
        "metric": sweep.metric,
        "metric_in_words": LABELS[sweep.metric],
        "better": "lower" if sweep.lower_is_better else "higher",
        "finished": sum(run["status"] == "completed" for run in every),
        "runs": len(every),
        "points": points,
        "verdict": verdict(sweep, points) if sweep.threshold else None,
    }


def verdict(sweep: Sweep, points: Sequence[Mapping]) -> dict:
    """Whether what was expected came out, by the interval of the differences within pairs.

    Two runs are a pair that share the seed and every field that is not compared. `confirmed`: the whole interval is at
    the threshold or above; `refuted`: the whole interval is below; `undecided`: the threshold is inside, or pairs are
    missing, because leaving out what failed would judge the survivors.
    """
    threshold, sign = sweep.threshold, 1 if sweep.lower_is_better else -1
    by_point = {number: {run["seed"]: run["value"] for run in one["runs"]} for number, one in enumerate(points)}
    both = [
        (by_point[sweep.points.index(ours)][seed], by_point[sweep.points.index(theirs)][seed])
        for ours, theirs in pairs(sweep.points, threshold)
        for seed in sweep.seeds
    ]
    differences = [sign * (theirs - ours) for ours, theirs in both if ours is not None and theirs is not None]
    mean, interval = mean_and_interval(differences)
    missing = len(both) - len(differences)
    if missing or interval is None:
        decided = "undecided"
    elif interval[0] >= threshold.by:
        decided = "confirmed"
    else:
        decided = "refuted" if interval[1] < threshold.by else "undecided"
    found = {
        "verdict": decided,
        "difference": mean,
        "interval": interval,
        "pairs": len(differences),
        "missing": missing,
    }
    return {**found, "sentence": _sentence(sweep, found)}


def expectation(sweep: Sweep) -> str:
    """The threshold in words."""
    threshold, word = sweep.threshold, "lower" if sweep.lower_is_better else "higher"
    better, than = sweep.spoken(threshold.better), sweep.spoken(threshold.than)
    return f"{sweep.metric} of {better} is {word} than that of {than} by {threshold.by:g} or more"


def markdown(found: Mapping) -> str:
    """The results as a table, best first, and the verdict."""
    lines = [
        f"| {'point':<20} | mean | 95 % interval | seeds | each seed |",
        f"|{'-' * 22}|-----:|:-------------:|------:|-----------|",
    ]
    for one in ordered(found):
        each = ", ".join(_figure(run["value"]) if run["value"] is not None else run["status"] for run in one["runs"])
        lines.append(
            f"| {one['label']:<20} | {_figure(one['mean'])} | {_interval(one['interval'])} | {one['n']} | {each} |"
        )
    caption = f"{found['metric_in_words']}, {found['better']} is better; intervals by Student's t over the seeds."
    said = f"\n\n**{found['verdict']['sentence']}**" if found["verdict"] else ""
    return "\n".join(lines) + f"\n\n{caption[0].upper()}{caption[1:]}{said}\n"


def ordered(found: Mapping) -> list[Mapping]:
    """The points, best mean first; those without one last."""
    sign = 1 if found["better"] == "lower" else -1
    return sorted(found["points"], key=lambda one: (one["mean"] is None, sign * (one["mean"] or 0.0)))


def _run(sweep: Sweep, seed: int, record: Mapping | None) -> dict:
    if record is None:
        return {"seed": seed, "run": None, "status": "waiting", "value": None, "error": None}
    value = record["result"].get(sweep.metric) if record["status"] == "completed" else None
    error = record.get("error")
    if record["status"] == "completed" and value is None:
        error = f"the run has no {sweep.metric}: its corpus does not tell it"
    return {"seed": seed, "run": record["run"], "status": record["status"], "value": value, "error": error}


def _sentence(sweep: Sweep, found: Mapping) -> str:
    said = f"{found['verdict'].capitalize()}: {expectation(sweep)}"
    if found["missing"]:
        return f"{said}; {found['missing']} of {found['missing'] + found['pairs']} pairs are not whole."
    if found["interval"] is None:
        return f"{said}; one pair has no interval, so more seeds are needed."
    return (
        f"{said}; the difference is {_figure(found['difference'])}, 95 % interval {_interval(found['interval'])}, "
        f"over {found['pairs']} pairs."
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{_figure(interval[0])} to {_figure(interval[1])}"
