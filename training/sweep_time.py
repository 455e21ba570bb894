"""What a sweep will train and how long that takes: estimated before, measured while it goes.

May import `hub` and `data`. What the points are estimated at weighs them against each other; what those that are
finished took sets the pace of the rest.
"""

from collections.abc import Mapping

from data.workspace import Workspace
from training.estimate import Unknown, estimate
from training.sweep_file import check_points
from training.sweep_plan import Sweep
from training.sweep_results import expectation

Key = tuple[int, int]  # (number of the point, seed)


def estimated_seconds(sweep: Sweep, workspace: Workspace) -> list[float | None]:
    """The training time of one run of each point on this machine, None where that is not known yet."""
    found = []
    for recipe in check_points(sweep, workspace):
        try:
            found.append(estimate(recipe, workspace).seconds)
        except Unknown:
            found.append(None)
    return found


class Pace:
    """What is left, by what was measured.

    Args:
        estimates: of each point, as `estimated_seconds` gives them.
    """

    def __init__(self, estimates: list[float | None]):
        self.known = None not in estimates
        self.weights = [seconds if self.known else 1.0 for seconds in estimates]
        self.seconds = self.weight = 0.0  # of the runs that were measured

    def finished(self, key: Key, seconds: float) -> None:
        self.seconds += seconds
        self.weight += self.weights[key[0]]

    def left(self, shares: Mapping[Key, float]) -> float | None:
        """Seconds until the end, None where nothing tells.

        Args:
            shares: of each run that is not finished, how much of it is done, from 0 to 1.
        """
        if not self.weight and not self.known:
            return None
        pace = self.seconds / self.weight if self.weight else 1.0
        return pace * sum(self.weights[number] * (1 - share) for (number, _), share in shares.items())


def minutes(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def plan(sweep: Sweep, workspace: Workspace) -> dict:
    """What would be trained, and how long that may take; nothing is made."""
    seconds = estimated_seconds(sweep, workspace)
    points = [
        {"label": sweep.label(point), "point": point, "seconds": one}
        for point, one in zip(sweep.points, seconds, strict=True)
    ]
    total = None if None in seconds else sum(seconds) * len(sweep.seeds)
    return {
        "sweep": sweep.id, "question": sweep.question, "points": points, "seeds": list(sweep.seeds),
        "runs": len(points) * len(sweep.seeds), "metric": sweep.metric,
        "expected": expectation(sweep) if sweep.threshold else None, "seconds": total,
    }  # fmt: skip


def told(planned: dict) -> str:
    """A plan as a person reads it."""
    lines = [f"{planned['sweep']}: {planned['question']}"]
    for one in planned["points"]:
        lines.append(f"  {one['label']:<40} {'' if one['seconds'] is None else 'about ' + minutes(one['seconds'])}")
    total = "" if planned["seconds"] is None else f", about {minutes(planned['seconds'])} on this machine"
    lines.append(f"{len(planned['points'])} points x {len(planned['seeds'])} seeds = {planned['runs']} runs{total}")
    lines.append(
        f"measured: {planned['metric']}" + (f"; expected: {planned['expected']}" if planned["expected"] else "")
    )
    return "\n".join(lines)
