"""What differs where FSDP2 shards weights, gradients and optimizer over the processes.

May import nothing of ours. The loop, the checkpoints and the saved model are the same with and without: a sharded value
is gathered where a whole one is needed, here.
"""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM


def check_sharding(accelerator: Accelerator, optimizer: str) -> None:
    """Raises ValueError for what cannot be trained in shards: Muon, and anything under the first version of FSDP."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    if not accelerator.is_fsdp2:
        raise ValueError(
            "this Accelerate configuration asks for FSDP 1, whose optimizer state cannot go on with another number of "
            "processes: set fsdp_version: 2 in it"
        )
    if optimizer == "muon":
        raise ValueError(
            "Muon orthogonalises whole weight matrices, and FSDP keeps a part of each on every process: "
            "train with --train.optimizer adamw, or without FSDP"
        )


def name_blocks(model: nn.Module) -> None:
    """Leave only classes that the model has among those FSDP is to wrap one by one: it refuses a name it cannot find.

    A class of models names all its kinds of blocks, and one model has one kind.
    """
    there = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = [name for name in model._no_split_modules or () if name in there]


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(value: Tensor) -> Tensor:
    """A plain tensor of what may be sharded. Collective where it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_model(accelerator: Accelerator, model: nn.Module) -> nn.Module | None:
    """The model itself; of a sharded one an ordinary copy, on the main process alone, None on the others. Collective.

    For what a sharded model cannot do, such as writing text: it is never whole outside of a forward pass.
    """
    if not is_sharded(model):
        return model
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng():  # fresh weights are drawn, and thrown away: the run's random numbers stay as they are
        copy = AutoModelForCausalLM.from_config(model.config)
    copy.load_state_dict(weights)
    return copy.to(accelerator.device)


def ordinary(model: nn.Module) -> nn.Module:
    """The model itself; of a sharded one its shape without weights, for saving given ones.

    Sharding puts a class of its own before the model's: saved as it is, FSDP's code would lie beside the weights.
    """
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(model.config)
    shape.generation_config = model.generation_config
    return shape
