"""The lean decoder beside the library's `generate`: greedy, one text at a time, the same tokens from the same model.

Both sides take turns in one process, so that a slow minute of the machine falls on both; medians of the per-round
ratios. Weights are random: speed does not depend on them, and that the tokens agree is checked in every round.

    python -m benchmarks.generation
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

if not __package__:  # run as a file: this folder's names must not shadow the rooms'
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import Parser, cli
from modeling import LabGPTConfig, LabGPTForCausalLM

PROMPT = 16  # tokens
TARGETS = {1: 1.4, 2: 1.8}  # times the library's speed, by threads


def main() -> None:
    parser = Parser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens in one text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--attention", choices=("softmax", "linear"), default="softmax")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    model = random_model(arguments)
    rows = [compare(model, threads, arguments) for threads in arguments.threads]
    report = {"parameters": model.num_parameters(), "new_tokens": arguments.tokens, "rows": rows}
    print(json.dumps(report, indent=2) if arguments.json else describe(report))


def random_model(arguments) -> LabGPTForCausalLM:
    """Fresh weights would give every token the same score: these tell them apart."""
    torch.manual_seed(0)
    config = LabGPTConfig(
        vocab_size=65,
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        max_position_embeddings=PROMPT + arguments.tokens,
        attention=arguments.attention,
        initializer_range=0.05,
    )
    return LabGPTForCausalLM(config).eval()


def compare(model: LabGPTForCausalLM, threads: int, arguments) -> dict:
    torch.set_num_threads(threads)
    ids = torch.randint(0, 65, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    count = arguments.tokens

    def lean() -> Tensor:
        return torch.cat([step.token_ids for step in model.decode(ids, max_new_tokens=count)])

    def library() -> Tensor:
        return model.generate(ids, max_new_tokens=count, do_sample=False)[0, PROMPT:]

    sides = {"generate": library, "decode": lean}
    seconds = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):  # the first is for warming up
        texts = []
        for name, side in sides.items():
            text, *spent = timed(side)
            texts.append(text)
            if turn:
                seconds[name].append(spent)
        if not torch.equal(*texts):
            raise RuntimeError("decode and generate gave different tokens")
    row = {"threads": threads, "same_tokens": True, "target": TARGETS.get(threads)}
    for name, spent in seconds.items():
        row[f"{name}_tokens_per_second"] = count / statistics.median(wall for wall, _ in spent)
    for i, kind in enumerate(("wall", "cpu")):
        ratios = [a[i] / b[i] for a, b in zip(seconds["generate"], seconds["decode"], strict=True)]
        row[f"{kind}_ratio"] = statistics.median(ratios)
    return row


def timed(side: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    text = side()
    return text, time.perf_counter() - wall, time.process_time() - cpu


def describe(report: dict) -> str:
    lines = [
        f"{report['parameters'] / 1e6:.1f} M parameters, {report['new_tokens']} new tokens at batch 1, same tokens",
        f"{'threads':>8}{'generate':>12}{'decode':>12}{'ratio':>8}{'of CPU time':>13}{'target':>8}",
    ]
    for row in report["rows"]:
        library, lean = row["generate_tokens_per_second"], row["decode_tokens_per_second"]
        target = "-" if row["target"] is None else f"{row['target']:.1f}"
        lines.append(
            f"{row['threads']:>8}{library:>8.0f} t/s{lean:>8.0f} t/s"
            f"{row['wall_ratio']:>8.2f}{row['cpu_ratio']:>13.2f}{target:>8}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
