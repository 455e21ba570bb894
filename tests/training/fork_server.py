"""Runs training commands in forked children of one process that has imported everything already.

Reads one JSON object a line: `argv` for `training.pretrain`, and what is to befall the child. `kill` is where it dies
by SIGKILL: `["step", 7]` after that optimizer step, `["save", 8]` in the middle of writing that checkpoint's state,
`["publish", 8]` between the checkpoint and the run's root. `signal` is one it gets after a step, `poison` a step whose
loss is a NaN, `file_limit` the largest file it may write. Answers with its exit status and what it printed.
Nothing is computed here before forking: OpenMP's threads do not survive a fork.
"""

import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.console import cli
from training import loop, pretrain, state


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if pid == 0:
                child(order, output.fileno())
            _, status = os.waitpid(pid, 0)
            output.seek(0)
            text = output.read().decode(errors="replace")
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "output": text}), flush=True)


def child(order: dict, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(order.get("environment", {}))
    sys.argv = ["training/pretrain.py", *order["argv"]]
    if order.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    if order.get("kill"):
        plan(*order["kill"])
    if order.get("signal"):
        number, step = order["signal"]
        after_step(step, lambda: os.kill(os.getpid(), signal.Signals[number]))
    if order.get("poison"):
        poison(order["poison"])
    try:
        cli(pretrain.main)
    except SystemExit as done:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(done.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)


def plan(where: str, step: int) -> None:
    """Die at the given point, as the kernel lets a process die."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":
        after_step(step, die)
    elif where == "save":
        write = state.write

        def torn(captured, folder):
            write(captured, folder)
            if captured["position"]["step"] == step:
                file = folder / state.STATE
                os.truncate(file, file.stat().st_size // 2)
                die()

        state.write = torn
    else:
        publish = loop.publish

        def unpublished(run, folder):
            if folder.name == f"step-{step:06d}":
                die()
            publish(run, folder)

        loop.publish = unpublished


def after_step(step: int, act) -> None:
    inner = loop.optimizer_step

    def stepped(job, model, optimizer, number):
        result = inner(job, model, optimizer, number)
        if number + 1 == step:
            act()
        return result

    loop.optimizer_step = stepped


def poison(step: int) -> None:
    """Make the loss of one step a NaN, as a diverged model would."""
    inner = loop.loss_of

    def spoilt(*args):
        poison.calls += 1
        return inner(*args) * (float("nan") if poison.calls == step else 1.0)

    poison.calls = 0
    loop.loss_of = spoilt


if __name__ == "__main__":
    main()
