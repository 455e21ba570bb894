"""Model FLOPs utilisation: the model's operations a second over the matrix-multiply peak measured on this machine.

May import nothing of ours but `training.machine`.
"""

from functools import lru_cache

import torch
from torch import nn

from training.machine import flops_per_token, matrix_peak

# Sizes at which a product reaches the peak, and no longer than that takes.
SECONDS, SIZE = 0.1, {"cpu": 1024}
LARGE = 8192  # of any other device
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def per_token(model: nn.Module, recipe, processes: int) -> float | None:
    """Utilisation at one token a second; None where the operations of a token are not known.

    That is where the configuration does not tell the attention's size, and where a part of the weights is frozen: what
    a step computes of their gradients depends on where they stand.
    """
    config = model.config
    if not all(p.requires_grad for p in model.parameters()):
        return None
    if not all(getattr(config, name, None) for name in ("num_attention_heads", "num_hidden_layers", "hidden_size")):
        return None
    flops = flops_per_token(config, inner_parameters(model), recipe.context)
    return flops / (peak(recipe.device, recipe.precision, recipe.threads) * processes)


def inner_parameters(model: nn.Module) -> int:
    """Parameters outside the embedding tables."""
    tables = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return sum(p.numel() for p in model.parameters() if p not in tables)


@lru_cache
def peak(device: str, precision: str, threads: int | None) -> float:
    """Operations a second of one process's device, measured once. The run's random numbers are left as they are."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return matrix_peak(device, DTYPES[precision], SECONDS, SIZE.get(device, LARGE))
