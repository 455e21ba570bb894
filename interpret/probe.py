"""Linear probes: can a label be read off a model's activations, and in which layer?

May import `hub` and `data`; of ours `interpret.probe_fit`, `probe_sets`, `record`, `sites`, `structure` and `writing`.
Works on any causal language model that `hub.models` opened; docs/probes.md says how to read what it finds.

Shapes: N examples, C numbers of a vector.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from data.console import cli, nearest
from interpret.probe_fit import Score, control_labels, fit, shuffled_labels, split
from interpret.probe_sets import Example, ProbeSet
from interpret.prompt import MAX_TOKENS
from interpret.record import record
from interpret.sites import IN_LAYER, expand
from interpret.structure import structure
from interpret.writing import positions_left, prompt_ids

SITES = tuple(site for site in IN_LAYER if site not in ("attn_scores", "pattern"))  # a vector for each token
BATCH = 32  # texts of the same length read at once
ENTERS = "blocks.0.resid_pre"
NO_CONTROL = "There is no control task: the set has fewer types of words than labels."


@dataclass(frozen=True)
class LayerProbe:
    """The probes of one layer: of the labels, of the control task (None where it cannot be set), of shuffled labels.

    `site` is the full name of what was read; `layer` -1 is what enters the first layer.
    """

    site: str
    layer: int
    real: Score
    control: Score | None
    shuffled: Score

    @property
    def selectivity(self) -> float | None:
        """How much better the probe does than on the control task."""
        return None if self.control is None else self.real.accuracy - self.control.accuracy


@dataclass(frozen=True)
class Probes:
    """A set probed at one site, layer by layer; `fitted` and `held_out` count examples, `note` says what is missing."""

    labels: list[str]
    fitted: int
    held_out: int
    layers: list[LayerProbe]
    note: str

    @property
    def best(self) -> LayerProbe:
        """The layer where the labels are read best; of several the first."""
        return max(self.layers, key=lambda probe: probe.real.accuracy)


def probe(
    model: nn.Module,
    tokenizer,
    labelled: ProbeSet,
    site: str = "resid_post",
    layers: Collection[int] | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Probes:
    """Fit and judge a probe in every layer, on the same split of the texts.

    Args:
        site: one of SITES. Of `resid_post` in all layers, what enters the first layer is probed as well.
        seed: of the split, of the control task's labels, and of the shuffling.
        progress: is given the names of what is probed, and gives them back one by one.

    Raises ValueError for a site that has no vector for each token, and for labels too few to be split.
    """
    names = site_names(model, site, layers)
    examples, vectors, left_out = activations(model, tokenizer, labelled.examples, names)
    labels, targets = np.unique([example.label for example in examples], return_inverse=True)
    texts = np.unique([example.text for example in examples], return_inverse=True)[1]
    types = np.array([example.type for example in examples])
    parts = split(targets, texts, seed)
    control, shuffled = control_labels(targets, types, seed), shuffled_labels(targets, seed)
    found = []
    for name in progress(names):
        x = vectors.pop(name)
        real = fit(x, targets, texts, parts)
        memory = None if control is None else fit(x, control, texts, parts)
        layer = -1 if name == ENTERS else int(name.split(".")[1])
        found.append(LayerProbe(name, layer, real, memory, fit(x, shuffled, texts, parts)))
    note = " ".join(filter(None, (labelled.note, left_out, "" if control is not None else NO_CONTROL)))
    return Probes(labels.tolist(), len(parts.train), len(parts.test), found, note)


def site_names(model: nn.Module, site: str, layers: Collection[int] | None = None) -> list[str]:
    """Full names of what is probed, in the order of the forward pass."""
    if site not in SITES:
        why = "has no vector for each token" if site in IN_LAYER else "is none"
        raise ValueError(f"a probe reads one vector of each token, and {site!r} {why}; {nearest(site, SITES)}")
    enters = [ENTERS] if site == "resid_post" and layers is None else []
    return expand([*enters, site], len(structure(model).layers), layers)


def activations(
    model: nn.Module, tokenizer, examples: Sequence[Example], names: Collection[str]
) -> tuple[list[Example], dict[str, np.ndarray], str]:
    """(the examples that could be read, their vectors (N, C) float32 by site, what was left out as a sentence or "").

    Each text is read as far as its place reaches, so that what follows cannot matter and the place is always the last
    token; texts of the same length are read together, without padding.
    """
    room = positions_left(model, 0)
    most = MAX_TOKENS if room is None else min(MAX_TOKENS, room)
    read = [(example, ids_to_place(model, tokenizer, example)) for example in examples]
    kept = [(example, ids) for example, ids in read if len(ids) <= most]
    if not kept:
        raise ValueError(f"no text of the set has its place within the {most} tokens that are read: shorten the texts")
    vectors = dict.fromkeys(names)
    for rows in batches([ids for _, ids in kept]):
        tensors = record(model, torch.tensor([kept[row][1] for row in rows]), names, positions=[-1])
        for name, tensor in tensors.items():
            flat = tensor.float().flatten(1).numpy()  # (B, C); of heads (B, H*D)
            if vectors[name] is None:
                vectors[name] = np.empty((len(kept), flat.shape[1]), np.float32)
            vectors[name][rows] = flat
    lost = len(read) - len(kept)
    note = f"{lost} examples are left out: their place is behind the {most} tokens that are read." if lost else ""
    return [example for example, _ in kept], vectors, note


def ids_to_place(model: nn.Module, tokenizer, example: Example) -> list[int]:
    """The text's tokens up to the last that touches its place, behind the one that begins every text."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("this model's tokenizer does not tell where in a text a token stands: a probe has to know")
    ids = prompt_ids(model, tokenizer, example.text)
    spans = tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    touching = [i for i, (start, end) in enumerate(spans) if start < example.end and end > example.start]
    if not touching:
        raise ValueError(f"the tokenizer makes no token of {example.text[example.start : example.end]!r}")
    return ids[: len(ids) - len(spans) + touching[-1] + 1]


def batches(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of texts that are equally long, no more than BATCH at once."""
    by_length: dict[int, list[int]] = {}
    for number, ids in enumerate(texts):
        by_length.setdefault(len(ids), []).append(number)
    for rows in by_length.values():
        yield from (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


if __name__ == "__main__":
    from interpret.probe_cli import main  # it imports this module

    cli(main)
