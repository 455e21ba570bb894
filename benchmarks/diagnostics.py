"""What measuring costs a training: CPU time inside diagnostics, and inside logging, over the CPU time of the steps.

The model of `benchmarks.training` at the default cadences, compiled, 1,000 steps after the first few. CPU time and not
the clock's: other programs on the machine do not change the shares.

    python -m benchmarks.diagnostics
"""

import json
import os
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path

from data.console import Parser, cli

STEPS = 1000
WARM = 20  # steps after which it is compiled
TARGETS = {"diagnostics": 0.03, "logging": 0.02}


def main() -> int:
    parser = Parser(prog="python -m benchmarks.diagnostics", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    report = cpu_shares(arguments.threads, arguments.steps)
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return int(report["share"]["diagnostics"] > TARGETS["diagnostics"])


def cpu_shares(threads: int, steps: int = STEPS) -> dict:
    """CPU seconds of `steps` steps, of which in what, and the shares of diagnostics and logging in the bare steps'."""
    from benchmarks.training import lab_job
    from training import loop

    meter = Meter()
    meter.watch()
    step_of_loop, begun = loop.optimizer_step, {}

    def stepped(job, model, optimizer, step, *rest):
        result = step_of_loop(job, model, optimizer, step, *rest)
        if step == WARM:
            meter.seconds.clear()
            begun["at"] = time.process_time()
        if step == WARM + steps:
            begun["seconds"], begun["inside"] = time.process_time() - begun["at"], Counter(meter.seconds)
        return result

    loop.optimizer_step = stepped
    loop.due = lambda step, every, last: step % every == 0  # nothing is done for the sake of the last step
    loop.Keeper.save = lambda self, step: None
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        loop.train(lab_job(folder, threads, steps=steps + WARM + 2))
    inside = {kind: sum(s for (k, _), s in begun["inside"].items() if k == kind) for kind in TARGETS}
    bare = begun["seconds"] - sum(inside.values())
    return {
        "threads": threads,
        "steps": steps,
        "cpu_ms_a_step": round(bare / steps * 1e3, 2),
        "share": {kind: round(seconds / bare, 4) for kind, seconds in inside.items()},
        "cpu_seconds": {name: round(seconds, 3) for (_, name), seconds in sorted(begun["inside"].items())},
    }


class Meter:
    """CPU time inside chosen methods; of nested ones the outermost takes all."""

    def __init__(self):
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.depth = 0

    def watch(self) -> None:
        from training.diagnostics import Diagnostics
        from training.keeper import Keeper
        from training.log import Log
        from training.step_measures import StepMeasures

        methods = {
            "diagnostics": [(Diagnostics, "before_step"), (StepMeasures, "gradients"), (Keeper, "diagnose")],
            "logging": [(Log, "buffer"), (Log, "flush")],
        }
        for kind, places in methods.items():
            for owner, name in places:
                setattr(owner, name, self.timed(getattr(owner, name), (kind, f"{owner.__name__}.{name}")))

    def timed(self, function, key):
        def wrapper(*args, **kwargs):
            self.depth += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.seconds[key] += time.process_time() - start

        return wrapper


def describe(report: dict) -> str:
    lines = [f"{report['steps']} steps of {report['cpu_ms_a_step']} ms CPU time each, {report['threads']} threads"]
    for kind, share in report["share"].items():
        lines.append(f"  {kind:<12} {share:>7.2%} of the steps' CPU time  (target <= {TARGETS[kind]:.0%})")
    lines += [f"    {name:<28} {seconds:>7.3f} s" for name, seconds in report["cpu_seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
