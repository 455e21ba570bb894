"""`python -m training.verify RUN`: replay steps of a run from a checkpoint and compare them bit for bit.

May import `hub`, `data` and `modeling`. The replay has a folder of its own, which is thrown away: nothing of the run is
written. What is compared, and how, is in `training.comparison`.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data.console import Parser, cli
from data.workspace import Workspace
from hub.checkpoints import STATE, checkpoints, step_of, verify
from hub.metrics import METRICS, read_lines
from hub.models import resolve
from hub.process import code_sha, versions
from hub.registry import table
from hub.runs import LIVE, Run
from training import setup, state
from training.comparison import compare_checkpoint, compare_rows, rows
from training.fork import beginning, graft
from training.loop import train
from training.recipe import build_recipe, read_recipe

START = "start"  # stands for the run's beginning, which is a checkpoint only where it began with other weights


def replay(run: Run, workspace: Workspace, steps: int | None = None, since: str | None = None, force=False) -> dict:
    """Take steps of the run again and compare them with what it recorded.

    Args:
        steps: how many; None: to the run's next checkpoint, or to its last step.
        since: the checkpoint to begin from, or `start`; None: the newest with state that has steps behind it.
        force: compare although libraries or code are not those the run was trained with.

    Raises ValueError where there is nothing to replay from, or the run was trained otherwise than this process trains.
    """
    if run.status in LIVE:
        raise ValueError(f"run {run.id} is {run.status}: verify it when it has ended, or pick one that has")
    changed = changes(run)
    if changed and not force:
        raise ValueError(f"run {run.id} was trained with other software: {'; '.join(changed)}; --force compares anyway")
    last = last_step(run)
    checkpoint = place_to_begin(run, workspace, since, last)
    first = step_of(checkpoint) if checkpoint else 0
    until = end_of(run, first, last, steps)
    check_processes(run)
    started = time.perf_counter()
    with replica(run, checkpoint) as twin:
        again = train_again(twin, workspace, checkpoint, until)
        different = compare_rows(rows(run, first, until), again)
        found = [compare_checkpoint(path, twin) for path in checkpoints(run) if first < step_of(path) <= until]
    differences = sorted(filter(None, [different, *(item.pop("difference") for item in found)]), key=lambda d: d.step)
    return {
        "run": run.id,
        "from": checkpoint.name if checkpoint else START,
        "steps": [first + 1, until],
        "measured": {"steps": len(again), "equal": different is None},
        "checkpoints": found,
        "equal": not differences,
        "first_difference": dataclasses.asdict(differences[0]) if differences else None,
        "changed": changed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def changes(run: Run) -> list[str]:
    """What of the software is not as run.json records it."""
    info, here = run.info(), versions()
    differing = [(name, then) for name, then in info["versions"].items() if here.get(name) != then]
    found = [f"{name} {then} is now {here.get(name)}" for name, then in differing]
    if info["code_sha"] != code_sha():
        found.insert(0, f"the code of modeling/ changed ({info['code_sha'][:12]} is now {code_sha()[:12]})")
    return found


def place_to_begin(run: Run, workspace: Workspace, since: str | None, last: int) -> Path | None:
    """The checkpoint to replay from, its files verified; None for the run's beginning."""
    there = [path for path in checkpoints(run) if (path / STATE).is_dir() or path == beginning(run)]
    if since is None:
        chosen = next((path for path in reversed(there) if step_of(path) < last), None)
    elif since == START:
        chosen = beginning(run)
    else:
        chosen = Path(resolve(f"{run.id}@{since}", workspace))
        chosen = chosen if chosen != run.path else checkpoints(run)[-1]
        if chosen not in there:
            kept = ", ".join(path.name for path in there) or "none"
            raise ValueError(
                f"{run.id}@{chosen.name} has no training state left to replay from; there is {START!r}, the run's "
                f"beginning, and with state: {kept}"
            )
    if chosen is None and beginning(run) is not None:
        chosen = beginning(run)
    if chosen is not None:
        verify(chosen)
    return chosen


def end_of(run: Run, first: int, last: int, steps: int | None) -> int:
    """The last step to replay."""
    if first >= last:
        raise ValueError(f"run {run.id} took no steps after step {first}: begin earlier, as with --from {START}")
    if steps is None:
        return min([step_of(path) for path in checkpoints(run) if step_of(path) > first] or [last])
    if not 1 <= steps <= last - first:
        raise ValueError(f"--steps {steps} cannot be replayed: from step {first} there are 1 to {last - first}")
    return first + steps


def last_step(run: Run) -> int:
    """The last step of which something is recorded. Raises ValueError where there is none."""
    taken = [row["step"] for row in read_lines(run.path / METRICS) if "train_loss" in row]
    if not taken:
        raise ValueError(f"run {run.id} has recorded no step that could be replayed")
    return max(taken)


def check_processes(run: Run) -> None:
    """Raises ValueError for a run of several processes: their sums are rounded in another order than one's."""
    kept = [path for path in checkpoints(run) if (path / STATE / state.STATE).is_file()]
    if kept and (count := len(state.read(kept[-1] / STATE)["random"])) > 1:
        raise ValueError(
            f"run {run.id} was trained by {count} processes and would be replayed by one, which rounds sums otherwise: "
            "only runs of one process can be verified to the bit"
        )


@contextlib.contextmanager
def replica(run: Run, checkpoint: Path | None) -> Iterator[Run]:
    """A run folder like this one's at the checkpoint, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="llm-lab-verify.") as place:
        twin = Run(Path(place) / "runs" / run.id)
        twin.path.mkdir(parents=True)
        for name in ("run.json", "recipe.yaml"):
            (twin.path / name).write_bytes((run.path / name).read_bytes())
        if checkpoint is not None:
            graft(run, checkpoint, twin.path, with_state=True)
        yield twin


def train_again(twin: Run, workspace: Workspace, checkpoint: Path | None, until: int) -> dict[int, dict]:
    """Train the replica up to step `until`; its rows by step. Raises ValueError where it was told to stop before."""
    recipe = build_recipe(read_recipe(twin.path / "recipe.yaml"))
    recipe.train, accelerator = setup.set_machine(dataclasses.replace(recipe.train, trackers=()))
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    first = 0
    if checkpoint is not None:
        own, first = twin.path / "checkpoints" / checkpoint.name, step_of(checkpoint)
        setup.check_data(twin, data)
        setup.check_architecture(twin, model.config, own)
        model, checkpoint = setup.load_weights(model, own), own
    twin.start_process()
    train(setup.make_job(recipe, data, twin, model, accelerator), checkpoint, until)
    found = rows(twin, first, until)
    if max(found, default=first) < until:
        raise ValueError(f"the replay was stopped after step {max(found, default=first)}")
    return found


def summary(result: dict) -> str:
    """The result for people: what was compared, and whether it is the same."""
    first, last = result["steps"]
    lines = [f"{result['run']} from {result['from']}: steps {first:,} to {last:,} taken again in {result['seconds']} s"]
    lines += [f"other software than the run's: {words}" for words in result["changed"]]
    measured, gone = result["measured"], result["first_difference"]
    body = [["measurements", f"{measured['steps']:,} steps", _same(measured["equal"]), ""]]
    for item in result["checkpoints"]:
        for part in ("weights", "optimizer"):
            seen = item[part]
            what = f"{item['revision']} {part}"
            if seen is None:
                body.append([what, "–", "not compared", ""])
            else:
                body.append([what, f"{seen['tensors']} tensors", _same(seen["equal"]), f"sha256 {seen['sha256'][:12]}"])
    lines.append(table(body))
    if gone is None:
        lines.append("equal bit for bit")
    else:
        lines.append(
            f"different from step {gone['step']:,} on: {gone['name']} was {gone['run']} and is {gone['replay']} again"
        )
    return "\n".join(lines)


def _same(equal: bool) -> str:
    return "equal" if equal else "different"


def main() -> int:
    parser = Parser(
        prog="python -m training.verify",
        description="Replay steps of a finished or stopped run from one of its checkpoints, in a folder that is thrown "
        "away, and compare every measured value, the weights and the optimizer with the run's, bit for bit.",
        epilog="exit code: 0 equal, 1 different, 2 where nothing can be compared\n\nexamples:\n"
        "  python -m training.verify latest\n  python -m training.verify tales --from start --steps 20",
    )
    parser.add_argument("run", metavar="RUN", help="an id, the beginning of one, a name (its newest) or `latest`")
    parser.add_argument("--steps", type=int, metavar="K", help="how many (default: to the run's next checkpoint)")
    parser.add_argument(
        "--from", dest="since", metavar="REVISION", help=f"a checkpoint that still has its state, or `{START}`"
    )
    parser.add_argument("--force", action="store_true", help="compare although code or libraries changed since")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    parser.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("verify takes one process: use `python -m training.verify`, not a launcher of several")
    workspace = Workspace(given.workspace)
    result = replay(Run.open(workspace, given.run), workspace, given.steps, given.since, given.force)
    print(json.dumps(result, indent=2, ensure_ascii=False) if given.json else summary(result))
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    cli(main)
