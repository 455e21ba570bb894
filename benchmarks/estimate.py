"""The estimate beside what was measured: peak memory and CPU time of six recipes, each trained in a process of its own.

Peak memory is the operating system's, of the whole process, checks before the run included; CPU time is of the training
alone, evaluations and the last checkpoint included. Wanted: both within 15 % of the estimate.

    python -m benchmarks.estimate --json
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from data.console import Parser, cli
from data.prepare import prepare
from data.workspace import Workspace
from training import preflight, setup
from training.loop import train
from training.recipe import build_recipe

WANTED = 0.15
BRIEF = {"log_every": 5, "eval_sequences": 32, "compile": False}
RECIPES = {
    "tales, the default": {"train": {"steps": 40}},
    "characters of Shakespeare": {
        "data": {"corpus": "shakespeare", "tokenizer": "char"},
        "model": {"preset": "nano"},
        "train": {"steps": 20, "context": 256, "batch_size": 8},
    },
    "a llama, AdamW": {
        "data": {"vocab_size": 2048},
        "model": {
            "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
            "intermediate_size": 688,
        },
        "train": {"steps": 20, "optimizer": "adamw", "batch_size": 16, "context": 256},
    },
    "wide, AdamW": {
        "data": {"vocab_size": 4096},
        "model": {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12},
        "train": {"steps": 20, "optimizer": "adamw", "batch_size": 8},
    },
    "long context, checkpointing": {
        "model": {"hidden_size": 192, "num_attention_heads": 4},
        "train": {"steps": 20, "batch_size": 4, "context": 1024, "start": "anywhere", "activation_checkpointing": True},
    },
    "wide, micro-batches": {
        "model": {"hidden_size": 512, "num_hidden_layers": 4},
        "train": {"steps": 20, "batch_size": 16, "accumulate": 4},
    },
}  # fmt: skip


def main() -> int:
    parser = Parser(prog="python -m benchmarks.estimate", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=RECIPES, help="one of the recipes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", metavar="DIR", help="train --only in this workspace (used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(trained(arguments.only, Workspace(arguments.side), arguments.threads)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        names = [arguments.only] if arguments.only else list(RECIPES)
        report = {name: measure(name, folder, arguments.threads) for name in names}
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return 0


def recipe_of(name: str, threads: int):
    parts = RECIPES[name]
    return build_recipe({**parts, "train": {**BRIEF, "threads": threads, "device": "cpu", **parts["train"]}})


def trained(name: str, workspace: Workspace, threads: int) -> dict:
    """Train one recipe here, as `training.pretrain` does; what was expected and what was spent."""
    recipe = recipe_of(name, threads)
    recipe.train, accelerator = setup.set_machine(recipe.train)
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    run = setup.make_run(recipe, data, workspace, "measured", sys.argv, accelerator)
    job = setup.make_job(recipe, data, run, model, accelerator)
    preflight.begin(job, None)
    spending = preflight.Spent(recipe.train.device)
    train(job)
    preflight.conclude(run, spending.so_far())
    return run.info()["estimate"]


def measure(name: str, folder: str, threads: int) -> dict:
    """One recipe in a fresh process; the peak of its memory is what the system says when it has ended."""
    prepare(recipe_of(name, threads).data, Workspace(folder))
    command = [sys.executable, "-m", "benchmarks.estimate", "--only", name, "--side", folder, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=environment, cwd=Path.cwd())
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} failed; run it by itself to see why")
        output.seek(0)
        expected = json.loads(output.read().splitlines()[-1])
    scale = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    measured = {"memory": usage.ru_maxrss * scale, "cpu_seconds": expected["measured"]["cpu_seconds"]}
    return {
        kind: {"estimated": round(expected[kind], 2), "measured": value, "ratio": round(value / expected[kind], 3)}
        for kind, value in measured.items()
    }


def describe(report: dict) -> str:
    lines = [f"{'recipe':<30}{'estimated':>12}{'peak memory':>14}{'':>7}{'estimated':>12}{'CPU time':>11}"]
    for name, found in report.items():
        (memory, peak, over), (seconds, cpu, longer) = (tuple(kind.values()) for kind in found.values())
        lines.append(
            f"{name:<30}{memory / 1e6:>9,.0f} MB{peak / 1e6:>11,.0f} MB{over - 1:>+7.0%}"
            f"{seconds:>10.1f} s{cpu:>9.1f} s{longer - 1:>+7.0%}"
        )
    ratios = [kind["ratio"] for found in report.values() for kind in found.values()]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    lines.append(f"worst: {worst - 1:+.0%}, wanted: within {WANTED:.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
