"""What resuming needs beside the weights: optimizer, random states, position. Saved and restored to the bit.

May import nothing of ours. Gathering is collective: every process calls `capture`, the main one writes.
"""

import random
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

STATE = "training.pt"
# The whole optimizer on the main process, whatever was sharded (DDP, FSDP2): any number of processes can go on from it.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def capture(accelerator: Accelerator, model, optimizer, position: dict) -> dict:
    """Everything but the weights, as tensors and plain values. Collective.

    Args:
        position: where the run stands: `step`, `data_step`, and what the log carries over.
    """
    return {
        "optimizer": get_optimizer_state_dict(model, optimizer.optimizer, options=WHOLE),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
        "random": gather_object([_random_state()]),  # one a process
        "position": position,
    }


def write(state: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / STATE)


def read(folder: Path) -> dict:
    """What `write` wrote."""
    return torch.load(folder / STATE, map_location="cpu", weights_only=True)


def restore(folder: Path, accelerator: Accelerator, model, optimizer) -> dict:
    """Put optimizer and random states back as `capture` found them; returns the position.

    The settings of the parameter groups stay the recipe's, so that a rate changed on going on is in force.
    """
    state = read(folder)
    settings = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer.optimizer, state["optimizer"], options=WHOLE)
    for group, own in zip(optimizer.optimizer.param_groups, settings, strict=True):
        group.update(own)
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    ranks = state["random"]
    if len(ranks) == accelerator.num_processes:  # with another number of processes dropout alone differs
        _set_random_state(ranks[accelerator.process_index])
    return state["position"]


def _random_state() -> dict:
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set_random_state(state: dict) -> None:
    random.setstate(state["python"])
    kind, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
