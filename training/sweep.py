"""`python -m training.sweep FILE`: a grid of recipes, each with several seeds, as ordinary runs, and what came of it.

May import `hub` and `data`. A sweep is a folder `sweeps/<name>-<6 hex>/` of the workspace, the digits being those of
its content. Which runs are its own is written in the runs themselves, before anything else happens to them: killed at
any moment and started again, it finds them all, repeats none that is finished and resumes the one that was at work.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from data.console import Parser, cli
from data.workspace import Workspace, one_maker, write_atomic, write_json
from hub.launch import OUTPUT, launch
from hub.overview import records
from hub.runs import LIVE, Run, status_of
from training.jobs import STOPPED, make_job, open_job
from training.listener import attend
from training.recipe import build_recipe
from training.sweep_file import parse_sweep, read_sweep
from training.sweep_plan import Sweep, command_of, run_name
from training.sweep_plot import save_plot
from training.sweep_results import markdown, results
from training.sweep_time import Key, Pace, estimated_seconds, minutes, plan, told
from training.worker import begin

ROOM, FILE = "sweeps", "sweep.yaml"
POLL = 0.5  # seconds between two looks at the run that trains
FAILED = 1  # exit code where a run did not come to its end


@one_maker(lambda sweep, **_: sweep.id)
def find_or_make(sweep: Sweep, workspace: Workspace) -> Run:
    """The sweep's folder."""
    path = workspace.room(ROOM) / sweep.id
    if (path / "run.json").is_file():
        return Run(path)
    command = ["python", "-m", "training.sweep", str(path / FILE)]
    return make_job(path, "sweep", command, lambda folder: write_atomic(folder / FILE, sweep.to_yaml()))


def sweep_of(job: Run, workspace: Workspace) -> Sweep:
    """What a sweep's folder was made for."""
    return parse_sweep((job.path / FILE).read_text(encoding="utf-8"), workspace, str(job.path / FILE))


def start(sweep: Sweep, workspace: Workspace) -> Run:
    """Leave the sweep to a process of its own; one that was interrupted goes on."""
    job = find_or_make(sweep, workspace)
    launch(job, workspace)
    return job


def runs_of(job: Run, workspace: Workspace) -> dict[Key, Run]:
    """The sweep's runs, by number of the point and seed."""
    found: dict[Key, Run] = {}
    for path, info in records(workspace):  # newest first
        mine = (info or {}).get("inputs", {}).get("sweep") or {}
        if mine.get("id") == job.id:
            key = mine["number"], mine["seed"]
            if key not in found or info["status"] == "completed":
                found[key] = Run(path)
    return found


def collect(job: Run, sweep: Sweep, runs: dict[Key, Run]) -> dict:
    """The results so far, written into the sweep's folder as JSON, table and plot."""
    known = {key: run.info() for key, run in runs.items()}
    found = results(sweep, {key: {"run": info["id"], **info, "status": status_of(info)} for key, info in known.items()})
    write_json(job.path / "results.json", found)
    write_atomic(job.path / "table.md", markdown(found))
    save_plot(job.path, found)
    return found


def carry_out(job: Run, sweep: Sweep, workspace: Workspace) -> dict:
    """Train what is not finished, one run after another; returns the results. Ctrl-C saves and stops."""
    with job.lock(), attend(job):
        job.start_process()
        work = Work(job, sweep, workspace)
        try:
            for seed in sweep.seeds:  # all points with one seed first: an early look compares like with like
                for number in range(len(sweep.points)):
                    work.take((number, seed))
        finally:
            work.bar.close()
        found = collect(job, sweep, work.runs)
        failed = [run for point in found["points"] for run in point["runs"] if run["status"] != "completed"]
        error = None
        if failed:
            named = "; ".join(f"{run['run']}: {run['error'] or run['status']}" for run in failed[:3])
            error = (
                f"{len(failed)} of {found['runs']} runs did not finish ({named}); started again, they are tried again"
            )
        said = found["verdict"] and found["verdict"]["verdict"]
        job.finish("failed" if failed else "completed", {"finished": found["finished"], "verdict": said}, error)
    return found


class Work:
    """A sweep while it is carried out: its runs, how far they are, and what is said about it."""

    def __init__(self, job: Run, sweep: Sweep, workspace: Workspace):
        self.job, self.sweep, self.workspace = job, sweep, workspace
        self.runs = runs_of(job, workspace)
        self.pace = Pace(estimated_seconds(sweep, workspace))
        self.todo = {(number, seed): 0.0 for seed in sweep.seeds for number in range(len(sweep.points))}
        self.count = len(self.todo)
        self.bar = tqdm(total=self.count, bar_format="{percentage:3.0f}%|{bar:30}| {postfix}", disable=None)

    def take(self, key: Key) -> None:
        """One run, from wherever it stands to its end; what it ends with is recorded, and the sweep goes on."""
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = self.make(key)
        where = f"{self.count - len(self.todo) + 1}/{self.count} {self.name(key)}"
        if run.status == "completed":
            self.done(key, f"{where}: finished before, {run.id}")
            return
        began = time.monotonic()
        if run.status in LIVE and run.info()["process"]:  # the process outlived the sweep that began it
            self.watch(run, key, lambda: run.status in LIVE, lambda: time.sleep(POLL))
        else:
            self.train(run, key)
        found, seconds = collect(self.job, self.sweep, self.runs), time.monotonic() - began
        outcome = next(one for one in found["points"][key[0]]["runs"] if one["seed"] == key[1])
        if outcome["status"] == "completed":
            self.pace.finished(key, seconds)
        value, problem = outcome["value"], outcome["error"] or "see its output.log"
        said = f"{outcome['status']}, {problem}" if value is None else f"{self.sweep.metric} {value:.4f}"
        self.done(key, f"{where}: {said}; {seconds:.0f} s, {run.id}")

    def make(self, key: Key) -> Run:
        """An ordinary run, which says itself whose it is."""
        number, seed = key
        point = self.sweep.points[number]
        recipe = build_recipe(self.sweep.parts(point, seed))
        origin = {"id": self.job.id, "point": self.sweep.label(point), "number": number, "seed": seed}
        run = Run.create(
            self.workspace, run_name(self.sweep, point, seed), "pretrain", command_of(self.sweep, point, seed),
            recipe.to_yaml(), seed, {"sweep": origin},
        )  # fmt: skip
        known = {**self.runs, key: run}
        write_json(
            self.job.path / "points.json",
            [{"point": self.sweep.points[n], "seed": s, "run": known[n, s].id} for n, s in sorted(known)],
        )
        return run

    def train(self, run: Run, key: Key) -> None:
        """In a process of its own, which saves and ends when this one is stopped."""
        process = begin(run, self.workspace)
        try:
            self.watch(run, key, process.is_alive, lambda: process.join(POLL))
        except BaseException:
            process.terminate()
            process.join()
            collect(self.job, self.sweep, self.runs)
            raise

    def watch(self, run: Run, key: Key, lives: Callable[[], bool], wait: Callable[[], object]) -> None:
        while lives():
            wait()
            at = run.info()["progress"]
            self.todo[key] = (at.get("step") or 0) / at["steps"] if at.get("steps") else 0.0
            self.tell(f"{self.name(key)}: step {at.get('step') or 0}" if at.get("steps") else self.name(key))

    def done(self, key: Key, line: str) -> None:
        del self.todo[key]
        self.bar.write(line, file=sys.stderr)
        self.tell("")

    def tell(self, what: str) -> None:
        """How far the sweep is, to whoever looks at the terminal or at run.json."""
        left, finished = self.pace.left(self.todo), self.count - len(self.todo)
        self.job.heartbeat({"step": finished, "steps": self.count, "eta_seconds": left, "phase": what or None})
        self.bar.n = finished + sum(self.todo.values())
        eta = "" if left is None else f"about {minutes(left)} left"
        self.bar.set_postfix_str("  ".join(filter(None, (f"{finished}/{self.count} runs", what, eta))))

    def name(self, key: Key) -> str:
        return f"{self.sweep.label(self.sweep.points[key[0]])}, seed {key[1]}"


def main() -> int:
    parser = Parser(
        prog="python -m training.sweep",
        description="Train a grid of recipes, each with several seeds, and say what came of it. Started again, it goes "
        "on: what is finished is not repeated.",
        epilog="example:\n  python -m training.sweep docs/experiments/positional-encodings/sweep.yaml --dry-run",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a sweep's YAML file; see docs/sweeps.md")
    which.add_argument("--resume", metavar="SWEEP", help="go on with one, by its id, its name or `latest`")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained and how long it may take")
    parser.add_argument("--detach", action="store_true", help="leave it to a process of its own, and return at once")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    parser.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    job = open_job(workspace, ROOM, given.resume) if given.resume else None
    sweep = sweep_of(job, workspace) if job else read_sweep(given.file, workspace)
    if given.dry_run:
        planned = plan(sweep, workspace)
        print(json.dumps(planned, indent=2, ensure_ascii=False) if given.json else told(planned))
        return 0
    job = job or find_or_make(sweep, workspace)
    if given.detach:
        launch(job, workspace)
        print(f"sweep {job.id} is in a process of its own; follow: tail -f {shlex.quote(str(job.path / OUTPUT))}")
        return 0
    print(f"sweep {job.id} in {job.path}", file=sys.stderr)
    try:
        found = carry_out(job, sweep, workspace)
    except KeyboardInterrupt:
        print(f"stopped and saved; go on with: {job.resume_command()}", file=sys.stderr)
        return STOPPED
    print(json.dumps(found, indent=2, ensure_ascii=False) if given.json else f"{sweep.question}\n\n{markdown(found)}")
    if job.status == "failed":
        print(f"error: {job.info()['error']}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    cli(main)
