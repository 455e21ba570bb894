"""One attention layer by kind, length and implementation: time and memory of a training pass, and size of the cache.

Time is forward and backward; memory is the highest level of tensors allocated on the way, inputs and weights aside;
the cache is what the layer keeps to go on from a text of that length. Implementations take turns, medians are shown.

    python -m benchmarks.attention --lengths 64 256 1024
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read when torch is imported: the profiler is otherwise talkative

import torch
from torch import Tensor
from transformers import DynamicCache

if not __package__:  # run as a file: this folder's names must not shadow the rooms'
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import Parser, cli
from modeling import LabGPTConfig, LabGPTModel

# kind -> the configuration's fields
KINDS = {
    "softmax": {},
    "softmax, 2 key heads": {"num_key_value_heads": 2},
    "softmax, window 64": {"sliding_window": 64},
    "softmax, alibi": {"position_embedding": "alibi"},
    "linear": {"attention": "linear"},
}
IMPLEMENTATIONS = ("eager", "sdpa")


def main() -> None:
    parser = Parser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for length in arguments.lengths for row in at_length(length, arguments)]
    settings = {name: getattr(arguments, name) for name in ("batch", "width", "heads", "threads", "device")}
    print(json.dumps({"settings": settings, "rows": rows}, indent=2) if arguments.json else describe(settings, rows))


class Layer:
    """One attention layer of a model, with what the model would hand it."""

    def __init__(self, kind: str, implementation: str, length: int, arguments):
        config = LabGPTConfig(
            hidden_size=arguments.width,
            num_attention_heads=arguments.heads,
            num_hidden_layers=1,
            max_position_embeddings=length,
            initializer_range=0.02,
            **KINDS[kind],
        )
        self.model = LabGPTModel(config).to(arguments.device)
        self.model.set_attn_implementation(implementation)
        self.device = torch.device(arguments.device)
        self.x = torch.randn(arguments.batch, length, arguments.width, device=self.device, requires_grad=True)
        self.milliseconds = []

    def attend(self, cache: DynamicCache | None = None) -> Tensor:
        model, x = self.model, self.x
        positions = torch.arange(x.shape[1], device=self.device)[None]
        mask = model.attention.mask(model.config, x, None, None, cache)
        context = {
            "rotation": model.positions.rotation(x, positions),
            "attention_mask": model.positions.bias(mask, x, cache),
            "past_key_values": cache,
        }
        return model.layers[0].self_attn(x, **context)[0]

    def training_pass(self) -> None:
        self.attend().sum().backward()

    def time(self) -> None:
        self.wait()
        start = time.perf_counter()
        self.training_pass()
        self.wait()
        self.milliseconds.append((time.perf_counter() - start) * 1e3)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        if self.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.training_pass()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(profile_memory=True) as profile:
            self.training_pass()
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        level = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            level += event.nbytes()
            peak = max(peak, level)
        return peak

    @torch.no_grad()
    def cache_bytes(self) -> int:
        cache = DynamicCache(config=self.model.config)
        self.attend(cache)
        (layer,) = cache.layers
        held = [layer.keys, layer.values, *getattr(layer, "recurrent_states", {}).values()]
        return sum(x.numel() * x.element_size() for x in held) // len(self.x)


def at_length(length: int, arguments) -> list[dict]:
    layers = {(k, i): Layer(k, i, length, arguments) for k in KINDS for i in IMPLEMENTATIONS}
    for layer in layers.values():
        layer.training_pass()  # warms up, and allocates the gradients that stay
    for _ in range(arguments.rounds):
        for layer in layers.values():
            layer.time()
    return [
        {
            "kind": kind,
            "implementation": implementation,
            "length": length,
            "milliseconds": statistics.median(layer.milliseconds),
            "peak_bytes": layer.peak_bytes(),
            "cache_bytes": layer.cache_bytes(),
        }
        for (kind, implementation), layer in layers.items()
    ]


def describe(settings: dict, rows: list[dict]) -> str:
    lines = [
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        f"{'length':>6}  {'kind':<22}{'implementation':<16}{'time':>10}{'memory':>12}{'cache of a text':>18}",
    ]
    for row in rows:
        lines.append(
            f"{row['length']:>6}  {row['kind']:<22}{row['implementation']:<16}{row['milliseconds']:>7.1f} ms"
            f"{row['peak_bytes'] / 2**20:>8.1f} MiB{row['cache_bytes'] / 2**10:>14.0f} KiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
