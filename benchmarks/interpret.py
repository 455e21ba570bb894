"""What looking costs: recording a model of Qwen2.5-0.5B's shape and drawing its attention, over a plain forward pass.

Random weights in float32, a prompt of 256 tokens, attention by its definition (eager) on both sides, which take turns.
Memory is the peak of the process above what it was before: of a plain pass, one small site, all sites.

    python -m benchmarks.interpret --rounds 5
"""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

from data.console import Parser, cli
from interpret.attention import eager, patterns
from interpret.attention import statistics as statistics_of
from interpret.attention_cli import draw_heads
from interpret.figures import save
from interpret.record import record
from interpret.sites import AROUND, IN_LAYER
from interpret.tab_attention import picture

SHAPE = {  # huggingface.co/Qwen/Qwen2.5-0.5B, config.json: 494 million parameters
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
ALL = (*AROUND, *IN_LAYER)
WANTED = 3.0  # times a plain pass: recording all sites and drawing the grid, together
STATUS = Path("/proc/self/status")


def main() -> int:
    parser = Parser(prog="python -m benchmarks.interpret", description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = measure(make(arguments.layers), arguments.tokens, arguments.rounds)
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return int(report["times"]["recording and the page's grid"]["clock"] > WANTED)


def make(layers: int) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**SHAPE, "num_hidden_layers": layers})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


class Words:
    """A tokenizer for random weights: a prompt is numbers between blanks."""

    bos_token_id = None

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids, **_) -> str:
        return " ".join(str(int(i)) for i in torch.as_tensor(ids).flatten())


def measure(model: nn.Module, tokens: int, rounds: int) -> dict:
    ids = torch.randint(model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
    memory = peaks(model, ids)
    spent = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, work in sides(model, ids, Path(folder)).items():
                clock, cpu = time.perf_counter(), time.process_time()
                work()
                spent[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    medians = {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in spent.items()}
    together = [sum(pair) for pair in zip(medians["all sites recorded"], medians["the page's grid"], strict=True)]
    medians["recording and the page's grid"] = together
    plain = medians["plain pass"]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "seconds": {name: round(clock, 3) for name, (clock, _) in medians.items()},
        "times": {
            name: {"clock": round(clock / plain[0], 2), "cpu": round(cpu / plain[1], 2)}
            for name, (clock, cpu) in medians.items()
        },
        "megabytes": memory,
    }


def sides(model: nn.Module, ids: Tensor, folder: Path) -> dict:
    """What is timed, in turns."""
    prompt = " ".join(map(str, ids[0].tolist()))

    def figure() -> None:
        seen = patterns(model, Words(), prompt)
        numbers = {"weights": seen.weights, **statistics_of(seen.weights, seen.windows)}
        save(draw_heads(seen), numbers, "python -m benchmarks.interpret", folder / "heads.png")

    return {
        "plain pass": lambda: plain(model, ids),
        "all sites recorded": lambda: record(model, ids, ALL),
        "the page's grid": lambda: picture(patterns(model, Words(), prompt), "qwen2"),
        "the figure in a file, with numbers": figure,
    }


@torch.inference_mode()
def plain(model: nn.Module, ids: Tensor) -> None:
    with eager(model):
        model(input_ids=ids, use_cache=False)


def peaks(model: nn.Module, ids: Tensor) -> dict[str, int] | None:
    """Megabytes at the highest above what was held before, and of what was asked for; None where Linux does not say."""
    if not STATUS.is_file():
        return None
    plain(model, ids)  # what the libraries allocate once and keep

    def peak(work) -> int:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: man 5 proc
        before = resident("VmRSS")
        work()
        return round((resident("VmHWM") - before) / 1e6)

    found = {"plain pass": {"peak": peak(lambda: plain(model, ids))}}
    middle = model.config.num_hidden_layers // 2
    for name, sites in {"one site of one layer": [f"blocks.{middle}.resid_post"], "all sites": ALL}.items():
        held = {}
        found[name] = {"peak": peak(lambda sites=sites, held=held: held.update(record(model, ids, sites)))}
        found[name]["asked for"] = round(sum(tensor.nbytes for tensor in held.values()) / 1e6)
    return found


def resident(field: str) -> int:
    """Bytes, by the kernel's names for them: `VmRSS` now, `VmHWM` at the highest."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def describe(report: dict) -> str:
    lines = [
        f"{report['parameters'] / 1e6:,.0f} million parameters, {report['tokens']} tokens, "
        f"{report['threads']} threads, medians of {report['rounds']} rounds",
        f"{'':<38}{'seconds':>9}{'times a plain pass':>20}{'CPU time':>10}",
    ]
    for name, times in report["times"].items():
        lines.append(f"{name:<38}{report['seconds'][name]:>9.2f}{times['clock']:>20.2f}{times['cpu']:>10.2f}")
    lines.append(f"wanted of the last: at most {WANTED:.0f}")
    for name, found in (report["megabytes"] or {}).items():
        asked = f", {found['asked for']} MB asked for" if "asked for" in found else ""
        lines.append(f"peak memory, {name}: {found['peak']} MB{asked}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
