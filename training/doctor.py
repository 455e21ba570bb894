"""`python -m training.doctor`: what this machine is and can do, and which room resolves to which folder.

May import every room, by name only: a room that is missing or shadowed is reported, not raised.
"""

import importlib.util
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from data.console import Parser, cli
from data.workspace import Workspace
from training.machine import choose_device, core_count, has_compiler, matrix_peak, supported_precisions

ROOMS = ("data", "modeling", "hub", "training", "interpret")
ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "datasets", "huggingface_hub")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STEPS = 5


def main() -> int:
    parser = Parser(prog="python -m training.doctor", description=__doc__.split("\n")[0])
    parser.epilog = "example:\n  python -m training.doctor --json"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--workspace", metavar="DIR", help="the workspace to look at (default: ./workspace)")
    arguments = parser.parse_args()
    report = {
        "machine": machine(),
        "versions": {name: installed(name) for name in LIBRARIES},
        "rooms": rooms(),
        "workspace": workspace_state(Workspace(arguments.workspace)),
        "devices": [measure(device) for device in available_devices()],
    }
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return 0 if all(room["ok"] for room in report["rooms"].values()) else 1


def machine() -> dict:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "compiler": has_compiler(),
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def rooms() -> dict[str, dict]:
    """Where Python finds each room: another package of the same name in front of ours would be taken in silence."""
    found = {}
    for name in ROOMS:
        spec = importlib.util.find_spec(name)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        found[name] = {"folder": str(folder) if folder else None, "ok": folder == ROOT / name}
    return found


def workspace_state(workspace: Workspace) -> dict:
    place = next(path for path in (workspace.root, *workspace.root.parents) if path.exists())
    return {
        "folder": str(workspace.root),
        "exists": workspace.root.is_dir(),
        "writable": os.access(place, os.W_OK),
        "free_gib": round(psutil.disk_usage(str(place)).free / 2**30, 1),
    }


def available_devices() -> list[str]:
    best = choose_device("auto")
    return [best, "cpu"] if best != "cpu" else ["cpu"]


def measure(device: str) -> dict:
    """Matrix peak by number format, and a training step of the smallest preset, on one device."""
    precisions = supported_precisions(device)
    peaks = {name: round(matrix_peak(device, DTYPES[name], seconds=0.2, size=1024) / 1e9, 1) for name in precisions}
    return {
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "gigaflops": peaks,
        "step": time_step(device),
    }


def time_step(device: str, rows: int = 8, context: int = 128) -> dict:
    """Median seconds of an eager training step of preset `tiny`, and tokens a second."""
    from training.architecture import build_config, build_model

    config = build_config({}, vocab_size=1024, context=context, special_tokens={})
    model = build_model(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, 1024, (rows, context), device=device)
    seconds = []
    for _ in range(STEPS + 2):  # two to warm up
        start = time.perf_counter()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[2:])[STEPS // 2]
    return {"milliseconds": round(median * 1000, 1), "tokens_per_second": round(rows * context / median)}


def describe(report: dict) -> str:
    """The report as a page of text."""
    here, place = report["machine"], report["workspace"]
    lines = [
        f"{here['system']}, Python {here['python']}, {here['cores']} cores, {here['memory_gib']} GiB memory",
        "libraries   " + ", ".join(f"{name} {found or 'missing'}" for name, found in report["versions"].items()),
        "compiler    "
        + ("found: torch.compile can be used" if here["compiler"] else "none: install g++ to use torch.compile"),
        f"workspace   {place['folder']} ({'exists' if place['exists'] else 'not made yet'}, "
        f"{'writable' if place['writable'] else 'NOT writable'}, {place['free_gib']} GiB free)",
    ]
    for name, room in report["rooms"].items():
        lines.append(
            f"room        {name:<10} {room['folder'] or 'not found'}" + ("" if room["ok"] else "   NOT this project's")
        )
    for device in report["devices"]:
        peaks = ", ".join(f"{name} {value:,.0f}" for name, value in device["gigaflops"].items())
        threads = f", {device['threads']} threads" if device["threads"] else ""
        step = device["step"]
        lines.append(f"{device['device']:<11} {device['name']}{threads}: GFLOP/s {peaks}")
        lines.append(
            f"            a training step of preset tiny (8 x 128 tokens): {step['milliseconds']:.0f} ms, "
            f"{step['tokens_per_second']:,} tokens/s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
