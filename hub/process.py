"""Which process a run belongs to, whether it still lives, and where a run came from: machine, versions, code.

May import `data`. A process number alone proves nothing, because numbers are reused: a process is its number, the
moment it started and the boot it belongs to.
"""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

from data.workspace import sha256_files, sha256_json

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers")
# A heartbeat comes every second or so; two minutes of silence outlast a compilation's worst single step.
SILENCE = 120.0


def now() -> str:
    """The time as every record of a run writes it: UTC, ISO 8601, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def this_process() -> dict:
    return {"pid": os.getpid(), "started": started(os.getpid()), "boot_id": boot_id(), "heartbeat_at": now()}


def is_alive(process: dict) -> bool:
    """Whether the recorded process still runs.

    On the same boot its number and start decide, at once. From another machine or container its number means nothing
    here, and the age of its last heartbeat decides.
    """
    if process.get("boot_id") == boot_id():
        return started(process["pid"]) == process["started"]
    last = datetime.fromisoformat(process["heartbeat_at"])
    return (datetime.now(UTC) - last).total_seconds() < SILENCE


def started(pid: int) -> float | None:
    """When the process began; None where there is none (a zombie is none: it runs nothing)."""
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        # On Linux the kernel's own count of ticks since boot: psutil's date moves when the clock is set.
        stat = Path(f"/proc/{pid}/stat")
        return (
            float(stat.read_text().rpartition(")")[2].split()[19])
            if stat.exists()
            else psutil.Process(pid).create_time()
        )
    except (psutil.Error, OSError):
        return None


def boot_id() -> str:
    """One text for this boot and, on Linux, this container's own numbering of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{platform.node()}/{psutil.boot_time():.0f}"


def machine() -> dict:
    """CPU, threads, GPUs and memory. It wakes CUDA: for the process that trains, not for one that only launches."""
    import torch  # slow to import, and the registry's commands do without

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "memory": psutil.virtual_memory().total,
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict:
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **installed}


def git_state() -> dict | None:
    """The project's commit and whether tracked files differ from it; None where it is not a checkout of its own."""
    top = _git("rev-parse", "--show-toplevel", "HEAD")
    # An unpacked copy inside somebody's other repository must not claim that repository's commit.
    if top is None or Path(top.split("\n")[0]).resolve() != PROJECT:
        return None
    return {"sha": top.split("\n")[1], "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_sha() -> str:
    """One hash of the model's code, which a resumed run must share with its checkpoints."""
    return sha256_json(sha256_files(PROJECT / "modeling", "*.py"))
