"""`make bench`: every benchmark in turn, each in a process of its own.

python -m benchmarks.run --nanogpt ../nanoGPT
"""

import subprocess
import sys

from data.console import Parser, cli

BENCHMARKS = (
    "training",
    "diagnostics",
    "generation",
    "encoding",
    "attention",
    "interpret",
    "page",
    "estimate",
    "finetuning",
)


def main() -> int:
    parser = Parser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("--nanogpt", metavar="DIR", help="a checkout of nanoGPT, for its own training loop")
    arguments = parser.parse_args()
    failed = 0
    for name in BENCHMARKS:
        flags = ["--nanogpt", arguments.nanogpt] if name == "training" and arguments.nanogpt else []
        print(f"\n== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags]).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    cli(main)
