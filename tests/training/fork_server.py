"""Runs training commands in forked children of one process that has imported everything already.

Its own arguments name the modules that may be run. Reads one JSON object a line: `argv` for the `main` of `module`, and
what is to befall the child; answers with its process number. `{"wait": pid}` is answered with a child's exit status and
what it printed, when it has ended.

`kill` is where the child dies by SIGKILL: `["step", 7]` after that optimizer step, `["save", 8]` in the middle of
writing that checkpoint's state, `["publish", 8]` between the checkpoint and the run's root. `signal` is one it gets
after a step, `poison` a step whose loss is a NaN, `file_limit` the largest file it may write, `slow` how many seconds
each step takes, `dawdle` how many its data take. `checked` leaves the checks before a run in,
which take seconds. `launched` is the run that it is the process of, as `hub.launch` leaves one. `shard` has Accelerate
shard the model as it does on GPUs. Nothing is computed here before forking: OpenMP's threads do not survive a fork.
"""

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from data.console import cli
from hub.process import now, this_process
from hub.runs import Run
from training import keeper, loop, preflight, setup, state


def main() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    outputs = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            output = outputs.pop(order["wait"])
            _, status = os.waitpid(order["wait"], 0)
            output.seek(0)
            answer = {"code": os.waitstatus_to_exitcode(status), "output": output.read().decode(errors="replace")}
            output.close()
        else:
            output = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the child has ended
            pid = os.fork()
            if pid == 0:
                child(order, output.fileno())
            outputs[pid] = output
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def child(order: dict, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(order.get("environment", {}))
    module = order["module"]
    sys.argv = [module.replace(".", "/") + ".py", *order["argv"]]
    if not order.get("checked"):
        preflight.begin = lambda job, checkpoint: None
    if order.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    if order.get("kill"):
        plan(*order["kill"])
    if order.get("signal"):
        number, step = order["signal"]
        after_step(step, lambda: os.kill(os.getpid(), signal.Signals[number]))
    if order.get("poison"):
        poison(order["poison"])
    if order.get("slow"):
        after_step(None, lambda: time.sleep(order["slow"]))
    if order.get("shard"):
        shard()
    if order.get("dawdle"):
        make_data = setup.make_data
        setup.make_data = lambda *given: time.sleep(order["dawdle"]) or make_data(*given)
    if order.get("launched"):
        Run(Path(order["launched"])).update(status="queued", queued_at=now(), process=this_process())
    try:
        cli(sys.modules[module].main)
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
        publish = keeper.publish

        def unpublished(run, folder):
            if folder.name == f"step-{step:06d}":
                die()
            publish(run, folder)

        keeper.publish = unpublished


def after_step(step: int | None, act) -> None:
    """Do something after one step, or after each."""
    inner = loop.optimizer_step

    def stepped(job, model, optimizer, number, *rest):
        result = inner(job, model, optimizer, number, *rest)
        if step in (None, number + 1):
            act()
        return result

    loop.optimizer_step = stepped


def shard() -> None:
    """FSDP2 by Accelerate on the CPU, where it would leave the plugin out in silence and train without shards."""

    def sharding(**settings) -> Accelerator:
        accelerator = Accelerator(**settings)
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
        )
        AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        return accelerator

    setup.Accelerator = sharding


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
