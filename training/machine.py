"""What this machine is and can do: devices, number formats, threads, and its measured matrix-multiply peak."""

import os
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from transformers import PreTrainedConfig

SHORT_CONTEXT = 128  # up to which attention written out beats the fused kernel in a compiled CPU step


def choose_device(wanted: str) -> str:
    """`auto` -> the best there is; a device that is not there is a ValueError that names those that are."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        raise ValueError(f"train.device {wanted!r} is not on this machine, which has: {', '.join(there)}")
    return wanted


def core_count() -> int:
    """Cores this process may use: a container's share, not the whole machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_compiler() -> bool:
    """torch.compile builds C++ kernels for the CPU: without a compiler it cannot."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


def choose_attention(device: str, compiled: bool, context: int) -> str:
    """`eager`, softmax attention written out, or `sdpa`, the library's fused kernel: whichever is faster there.

    Compiled for the CPU, the written-out one wins while the scores are small: 8 % of a step at a context of 64, 3 % at
    128; at 256 it loses 7 % (benchmarks/LOG.md).
    """
    return "eager" if device == "cpu" and compiled and context <= SHORT_CONTEXT else "sdpa"


def compile_options(device: str, deterministic: bool) -> dict | None:
    """What the compiler is told beyond its defaults: on the CPU, to call its kernels from C++ and not from Python.

    Without determinism it may also choose each product's kernel by trial, which another process may decide otherwise.
    """
    if device != "cpu":
        return None
    by_trial = {} if deterministic else {"max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
    return {"cpp_wrapper": True, **by_trial}


def supported_precisions(device: str) -> list[str]:
    if device == "cuda":
        return ["fp32", "bf16", "fp16"] if torch.cuda.is_bf16_supported() else ["fp32", "fp16"]
    return ["fp32", "bf16", "fp16"] if device == "mps" else ["fp32", "bf16"]


def flops_per_token(config: PreTrainedConfig, non_embedding: int, context: int) -> float:
    """Forward and backward: 6N + 12·L·H·D·T, N without embeddings (PaLM, arXiv:2204.02311, app. B).

    The head's matrix product counts as work although a tied head adds no parameters: N includes it, once.

    Args:
        non_embedding: parameters outside the embedding tables, as `setup.count_parameters` and run.json have them: a
            head of its own is among them, a tied one is not.
    """
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    tied_head = config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
    return 6 * (non_embedding + tied_head) + 12 * layers * heads * head_dim * context


def forget_peak_memory(device: str) -> None:
    """Let `peak_memory` begin anew, where the system can: Linux, and CUDA's allocator."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak resident set size becomes the current one


def peak_memory(device: str) -> int:
    """Bytes: the most that torch held on a GPU, or that the process had resident, since it was forgotten."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    if Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # bytes there, else kilobytes


def matrix_peak(
    device: str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 0.3, size: int = 2048
) -> float:
    """Floating-point operations a second of a square matrix product: the ceiling a step is judged against."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, deadline = float("inf"), None
    while deadline is None or time.perf_counter() < deadline:
        start = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.accelerator.synchronize()
        elapsed = time.perf_counter() - start
        if deadline is None:  # the first product warms up threads and caches
            deadline = time.perf_counter() + seconds
        else:
            best = min(best, elapsed)
    return 2 * size**3 / best
