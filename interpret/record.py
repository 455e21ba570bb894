"""Record a forward pass: the tensors of chosen sites, layers and positions, in memory or on disk.

May import `data`; of ours `interpret.sites`, `structure` and `writing`. Only what is asked for is held, a copy of it
and not the tensor it is a part of; a forward pass goes no further than the last site that is wanted needs.

Shapes: as in `interpret.sites`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from data.workspace import new_folder, read_json, write_json
from interpret.sites import Tap, expand, tapped
from interpret.structure import structure
from interpret.writing import positions_left

QUERIES = ("pattern", "attn_scores")  # sites whose tokens stand in the last but one dimension
INDEX = "recording.json"


@torch.no_grad()  # not inference mode: a lens or a probe may be trained on what was recorded
def record(
    model: nn.Module,
    inputs: Tensor | list[int],
    sites: Collection[str],
    layers: Collection[int] | None = None,
    positions: Collection[int] | None = None,
    edits: Mapping[str, Tap] | None = None,
    attention_mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """The tensors of `sites` by their full names, in the order of the forward pass, in the model's dtype on the CPU.

    Args:
        inputs: token ids, (T,) or (B, T).
        sites: names of `interpret.sites`: `pattern` in every layer, or `blocks.3.pattern` in one.
        layers: those that short names mean; all by default.
        positions: the tokens to keep (queries, of attention); negative ones count from the end.
        edits: what replaces a site's tensor on the way, by full name, before it is recorded.

    Raises ValueError for a site, layer or position that does not exist, and a prompt longer than the model.
    """
    parts = structure(model)
    ids = torch.as_tensor(inputs, device=model.device)
    ids = ids if ids.ndim == 2 else ids[None]
    check_length(model, ids.shape[1])
    names = expand(sites, len(parts.layers), layers)
    kept = check_positions(positions, ids.shape[1])
    found: dict[str, Tensor] = {}
    edits = full_edits(edits or {}, len(parts.layers))

    def keep(name: str) -> Tap:
        edit = edits.get(name)

        def tap(tensor: Tensor) -> Tensor | None:
            changed = edit(tensor) if edit else None
            if name in names:
                whole = tensor if changed is None else changed
                if kept is not None:
                    whole = whole.index_select(-2 if name.endswith(QUERIES) else 1, kept.to(whole.device))
                found[name] = whole.detach().to("cpu", copy=True)
            return changed

        return tap

    with tapped(model, {name: keep(name) for name in {*names, *edits}}, parts):
        # the head is the largest matrix of a small model: it is left out where nobody asks for logits
        forward = model if "logits" in names else parts.decoder
        forward(input_ids=ids, attention_mask=attention_mask, use_cache=False)
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{missing[0]} cannot be recorded: that layer has no softmax attention with a weight for each token"
        )
    return {name: found[name] for name in names}


def full_edits(edits: Mapping[str, Tap], layers: int) -> dict[str, Tap]:
    """Edits by full name; one of a short name is an edit in every layer."""
    return {name: edit for site, edit in edits.items() for name in expand([site], layers)}


def check_length(model: nn.Module, count: int) -> None:
    """Raises ValueError for no tokens, or more than the model has positions."""
    if count == 0:
        raise ValueError("there are no tokens to read")
    room = positions_left(model, 0)
    if room is not None and count > room:
        raise ValueError(f"{count:,} tokens are more than the model's {room:,} positions: shorten the prompt")


def check_positions(positions: Collection[int] | None, count: int) -> Tensor | None:
    """The positions counted from the beginning. Raises ValueError for one that is not there."""
    if positions is None:
        return None
    for position in positions:
        if not -count <= position < count:
            raise ValueError(f"there is no position {position}: the prompt has {count:,} tokens, 0 to {count - 1}")
    return torch.tensor([position % count for position in positions], dtype=torch.long)


def record_to(
    folder: Path,
    model: nn.Module,
    batches: Iterable[Tensor],
    sites: Collection[str],
    layers: Collection[int] | None = None,
    positions: Collection[int] | None = None,
) -> "Recording":
    """Record a data set larger than memory: one safetensors file a batch, in a folder that appears when it is whole.

    Args:
        batches: token ids, (B, T) each.
    """
    with new_folder(Path(folder)) as unfinished:
        files = []
        for number, ids in enumerate(batches):
            tensors = record(model, ids, sites, layers, positions)
            files.append(f"{number:06d}.safetensors")
            save_file({"input_ids": ids.cpu(), **tensors}, unfinished / files[-1])
        write_json(unfinished / INDEX, {"files": files, "sites": list(tensors) if files else []})
    return Recording(folder)


class Recording:
    """What `record_to` left; tensors are read when they are asked for."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise ValueError(f"{folder} holds no recording: there is no {INDEX} in it")
        index = read_json(self.folder / INDEX)
        self.files, self.sites = index["files"], index["sites"]

    def batches(self, site: str) -> Iterator[Tensor]:
        """One site's tensors, a batch at a time; `input_ids` are the tokens."""
        if site not in (*self.sites, "input_ids"):
            raise ValueError(f"{site!r} was not recorded; there are {', '.join(self.sites)}")
        for name in self.files:
            with safe_open(self.folder / name, framework="pt") as file:
                yield file.get_tensor(site)
