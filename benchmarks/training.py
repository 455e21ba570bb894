"""A training step beside its peers: GPT-2 under the library's Trainer, and nanoGPT's own loop, given a checkout.

Every side is a process of its own that runs a segment of steps when told to and reports its wall and CPU time, so the
sides take turns all through the run and a slow minute of the machine falls on all alike. Same size, same batch,
vocabulary of 65, fp32, fused AdamW on every side; compiling and the first steps are not counted.

    python -m benchmarks.training --nanogpt ../nanoGPT
"""

import json
import os
import pickle
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data.console import Parser, cli

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, VOCABULARY = 4, 4, 128, 64, 12, 65
SEGMENT = 50  # steps in one turn
TARGETS = {"trainer": 0.65, "nanogpt": 0.85}


def main() -> int:
    parser = Parser(prog="python -m benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--nanogpt", metavar="DIR", help="a checkout of nanoGPT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help="what this process is to run (used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.side:
        SIDES[arguments.side](arguments)
        return 0
    if arguments.nanogpt and not (Path(arguments.nanogpt) / "train.py").is_file():
        raise ValueError(f"--nanogpt {arguments.nanogpt} is no checkout of nanoGPT: it holds no train.py")
    report = compare(arguments)
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return 0


def compare(arguments) -> dict:
    """Let the sides take turns; medians of the per-round ratios to ours."""
    names = [name for name in SIDES if arguments.nanogpt or not name.startswith("nanogpt")]
    sides = {name: Side(command(name, arguments), arguments.threads) for name in names}
    rounds = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rounds[name].append(side.turn())
    for side in sides.values():
        side.close()
    ours = rounds["ours"]
    peak = measured_peak(arguments.threads)
    wall = {name: statistics.median(wall for wall, _ in turns) / SEGMENT for name, turns in rounds.items()}
    flops = 6 * (12 * LAYERS * WIDTH**2 + VOCABULARY * WIDTH) + 12 * LAYERS * WIDTH * CONTEXT  # per token
    return {
        "threads": arguments.threads,
        "milliseconds": {name: round(seconds * 1e3, 2) for name, seconds in wall.items()},
        "ours_over": {
            name: round(statistics.median(a[0] / b[0] for a, b in zip(ours, rounds[name], strict=True)), 3)
            for name in names
            if name != "ours"
        },
        "ours_over_cpu_time": {
            name: round(statistics.median(a[1] / b[1] for a, b in zip(ours, rounds[name], strict=True)), 3)
            for name in names
            if name != "ours"
        },
        "peak_gigaflops": round(peak / 1e9, 1),
        "mfu": {name: round(flops * BATCH * CONTEXT / seconds / peak, 3) for name, seconds in wall.items()},
        "logging_share_of_cpu": logging_share(arguments),
    }


def command(name: str, arguments) -> list[str]:
    """What runs one side by itself."""
    words = [sys.executable, "-m", "benchmarks.training", "--side", name, "--threads", str(arguments.threads)]
    return words + (["--nanogpt", str(Path(arguments.nanogpt).resolve())] if arguments.nanogpt else [])


class Side:
    """A process that runs a segment of steps for each line it is sent."""

    def __init__(self, command: list[str], threads: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.turn()  # compiles and warms up before any side is timed

    def turn(self) -> tuple[float, float]:
        """Wall and CPU seconds of a segment."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("segment "):
                _, wall, cpu = line.split()
                return float(wall), float(cpu)
        raise RuntimeError(f"the process {self.process.args} ended early; run it by itself to see why")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Gate:
    """Called once a step: at the end of each segment it reports, and waits to be told to go on."""

    def __init__(self, segment: int = SEGMENT):
        self.steps, self.segment = 0, segment
        sys.stdin.readline()
        self.start = time.perf_counter(), time.process_time()

    def __call__(self) -> None:
        self.steps += 1
        if self.steps % self.segment == 0:
            wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
            sys.__stdout__.write(f"segment {wall} {cpu}\n")
            sys.__stdout__.flush()
            if not sys.stdin.readline():
                sys.exit()
            self.start = time.perf_counter(), time.process_time()


def run_ours(arguments, deterministic: bool = False) -> None:
    """The lab's own loop, its log and progress bar included."""
    from training import loop

    gate = Gate()
    step = loop.optimizer_step

    def gated(*args):
        result = step(*args)
        gate()
        return result

    loop.optimizer_step = gated
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False
    with tempfile.TemporaryDirectory() as folder:
        loop.train(lab_job(folder, arguments.threads, steps=10**6))


def run_ours_deterministic(arguments) -> None:
    run_ours(arguments, deterministic=True)


def run_trainer(arguments) -> None:
    """GPT2LMHeadModel of the same size under transformers.Trainer, with its defaults but for the optimizer."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(arguments.threads)
    gate = Gate()

    class Turns(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            gate()

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for row in random_ids(4096 * CONTEXT).reshape(-1, CONTEXT).tolist()]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, max_steps=10**6, per_device_train_batch_size=BATCH, optim="adamw_torch_fused", use_cpu=True,
            report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=10,
        )  # fmt: skip
        Trainer(GPT2LMHeadModel(config), settings, train_dataset=rows, callbacks=[Turns()]).train()


def run_nanogpt(arguments, compiled: bool = False) -> None:
    """nanoGPT's train.py as it is, on data of our making; its AdamW made the fused one, as on every side."""
    torch.set_num_threads(arguments.threads)

    class Fused(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{"fused": True, **kwargs})

    torch.optim.AdamW = Fused
    gate = Gate()

    def report(*words):
        if str(words[0]).startswith("iter "):  # one such line a step
            gate()

    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "nanoGPT"
        shutil.copytree(arguments.nanogpt, checkout, ignore=shutil.ignore_patterns(".git", "assets", "*.ipynb"))
        data = checkout / "data" / "random"
        data.mkdir(parents=True)
        for split in ("train", "val"):
            random_ids(2**20).astype(np.uint16).tofile(data / f"{split}.bin")
        (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": VOCABULARY}))
        os.chdir(checkout)
        sys.path.insert(0, str(checkout))
        flags = {
            "dataset": "random", "device": "cpu", "compile": compiled, "eval_iters": 1, "log_interval": 1,
            "eval_interval": 10**6, "block_size": CONTEXT, "batch_size": BATCH, "n_layer": LAYERS, "n_head": HEADS,
            "n_embd": WIDTH, "max_iters": 10**6, "lr_decay_iters": 2000, "dropout": 0.0, "dtype": "float32",
            "gradient_accumulation_steps": 1,
        }  # fmt: skip
        sys.argv = ["train.py", *(f"--{name}={value!r}" for name, value in flags.items())]
        sys.argv = [flag.replace("'", "") for flag in sys.argv]
        runpy.run_path("train.py", init_globals={"print": report}, run_name="__main__")


def run_nanogpt_compiled(arguments) -> None:
    run_nanogpt(arguments, compiled=True)


SIDES = {
    "ours": run_ours,
    "ours_deterministic": run_ours_deterministic,
    "trainer": run_trainer,
    "nanogpt": run_nanogpt,
    "nanogpt_compiled": run_nanogpt_compiled,
}


def lab_job(folder: str, threads: int, steps: int):
    """A job of the lab's loop on random ids: nothing to evaluate, sample or save before the end."""
    from accelerate import Accelerator

    from data.tokens import Batches
    from data.workspace import Workspace
    from hub.runs import Run
    from modeling import LabGPTConfig, LabGPTForCausalLM
    from training.loop import Job
    from training.machine import choose_attention
    from training.recipe import TrainRecipe

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    recipe = TrainRecipe(
        steps=steps, batch_size=BATCH, context=CONTEXT, optimizer="adamw", learning_rate=1e-3, start="anywhere",
        embedding_learning_rate=1e-3, device="cpu", compile=True, threads=threads,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        eval_every=10**7, sample_every=10**7, save_every=10**7,
    )  # fmt: skip
    config = LabGPTConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        qk_norm=False,  # neither peer has one
    )  # fmt: skip
    model = LabGPTForCausalLM(config)
    model.set_attn_implementation(choose_attention("cpu", True, CONTEXT))  # as training/setup.py does
    run = Run.create(Workspace(folder), "bench", "pretrain", ["bench"], "", 0, {})
    batches = Batches(random_ids(2**20).astype(np.uint16), np.zeros(1, dtype=np.int64), CONTEXT, BATCH, 0)
    return Job(run, recipe, model, None, batches, None, Accelerator(cpu=True))


def logging_share(arguments) -> float:
    """CPU time in logging, metrics and progress over the CPU time of all steps."""
    from benchmarks.diagnostics import cpu_shares

    return cpu_shares(arguments.threads)["share"]["logging"]


def measured_peak(threads: int) -> float:
    from training.machine import matrix_peak

    torch.set_num_threads(threads)
    return matrix_peak()


def random_ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, count)


def describe(report: dict) -> str:
    lines = [
        f"a training step: {LAYERS} layers, {HEADS} heads, {WIDTH} wide, context {CONTEXT}, batch {BATCH}, vocabulary "
        f"{VOCABULARY}, fp32, fused AdamW, {report['threads']} threads (peak {report['peak_gigaflops']} GFLOP/s)",
        f"  {'':<20} {'ms':>8} {'MFU':>7} {'ours / it':>10} {'CPU time':>9}  target",
    ]
    for name, milliseconds in report["milliseconds"].items():
        ratio, cpu = report["ours_over"].get(name), report["ours_over_cpu_time"].get(name)
        shown = f"{ratio:>10.3f} {cpu:>9.3f}" if ratio else " " * 20
        target = f"  <= {TARGETS[name]}" if name in TARGETS else "  MFU >= 0.40" if name == "ours" else ""
        lines.append(f"  {name:<20} {milliseconds:>8.2f} {report['mfu'][name]:>7.1%} {shown}{target}")
    lines.append(
        f"  CPU time in logging, metrics, progress: {report['logging_share_of_cpu']:.2%} of the steps' (target < 2 %)"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
