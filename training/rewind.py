"""PaLM's remedy for a loss spike: back to a checkpoint before it, and past the batches around it.

May import `hub`. arXiv:2204.02311, 5.1: about 100 steps back, 200 to 500 batches skipped; the same batches met from
another state of the model do not spike, so it is the pair that has to be avoided. What happened after the checkpoint
is removed: checkpoints, measurements and samples are those of the training that goes on.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from hub.checkpoints import STATE, CorruptCheckpoint, checkpoints, rewind, step_of, verify
from hub.runs import Run
from training.spikes import Spike

TIMES = 3  # one checkpoint is gone back to: a loss that spikes after that has another cause


def place(run: Run, spike: Spike, back: int, rewinds: list[dict]) -> Path | None:
    """The newest checkpoint at least `back` steps before the spike, else the last one before it, that can be resumed.

    Args:
        rewinds: those of this run so far; a place that was gone back to three times is none any more.
    """
    there = [path for path in checkpoints(run) if step_of(path) < spike.step and _whole(path)]
    early = [path for path in there if step_of(path) <= spike.step - back]
    chosen = (early or there or [None])[-1]
    if chosen is None or sum(entry["to"] == step_of(chosen) for entry in rewinds) >= TIMES:
        return None
    return chosen


def forget_after(run: Run, checkpoint: Path) -> None:
    """Remove what the run did after the checkpoint, the newest first: killed in between, it would do the same again."""
    for path in reversed(checkpoints(run)):
        if step_of(path) > step_of(checkpoint):
            shutil.rmtree(path)
    rewind(run, checkpoint)


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """The checkpoint's weights into the live model, in place: what was compiled or wrapped keeps its parameters."""
    weights = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        weights |= load_file(file)
    options = StateDictOptions(full_state_dict=True, strict=False)  # tied weights are saved once
    missing = set(set_model_state_dict(model, weights, options=options).missing_keys)
    missing -= set(getattr(model, "all_tied_weights_keys", None) or {})
    assert not missing, f"{checkpoint.name} lacks {sorted(missing)}"


def _whole(path: Path) -> bool:
    try:
        verify(path)
    except CorruptCheckpoint:
        return False
    return (path / STATE).is_dir()
