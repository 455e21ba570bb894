"""Mixtures: a corpus made of others, each with its weight, which is its share of the bytes.

Uses numpy; of ours `data.corpora` and `data.snapshots`. Training and validation are mixed alike, each from the same
split of the parents, so that no text a parent holds out is trained on.

A mixture knows no entropy floor, though its parents may. The probability of a document would be a sum over the parents,
each with the share of documents drawn from it, also over those that could have written it by chance; and here documents
are drawn without replacement until a share of bytes is full, some of them cut, which makes them dependent.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute
import pyarrow.parquet

from data.builtin import BUILT_IN, Ingredients
from data.corpora import find_or_make, on_stderr, open_corpus
from data.hub_corpora import is_on_hub
from data.snapshots import SPLITS, VALIDATION_FRACTION, Corpus
from data.workspace import Workspace, check_name

# A document longer than this share of what its parent gives is cut where the share is full, as a single long text has
# to be; of shorter ones the last is taken or left whole, whichever comes nearer.
LONG = 0.1


@dataclass(frozen=True)
class Part:
    """One parent of a mixture: its share of the bytes, between 0 and 1, all shares together being 1."""

    corpus: Corpus
    weight: float

    def sizes(self, split: str) -> np.ndarray:
        """Bytes of each document, (documents,) int64."""
        table = pyarrow.parquet.read_table(self.corpus.path / f"{split}.parquet", columns=["text"])
        return pyarrow.compute.binary_length(table.column(0)).to_numpy().astype(np.int64)


def parse_weights(words: Iterable[str]) -> dict[str, float]:
    """`["tales=0.7", "shakespeare=0.3"]` -> weights by name, as they were written."""
    weights: dict[str, float] = {}
    for word in words:
        name, sign, number = word.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if not (sign and name and 0 < weight < float("inf")):
            raise ValueError(f"{word!r} should be a corpus and its weight, such as tales=0.7")
        if name in weights:
            raise ValueError(f"{name} is named twice: give it one weight")
        weights[name] = weight
    if len(weights) < 2:
        raise ValueError("a mixture is of two corpora or more, such as tales=0.7 shakespeare=0.3")
    return weights


def mix(
    name: str,
    weights: Mapping[str, float],
    workspace: Workspace,
    documents: int | None = None,
    size: int | None = None,
    seed: int = 0,
    say=on_stderr,
) -> Corpus:
    """The snapshot of a mixture, under `name` or, where that is another text, `<name>-<6 hex>`.

    Args:
        weights: by corpus, any positive numbers; their proportions are shares of bytes.
        documents: about how many documents to train on.
        size: how many bytes to train on; without either, as much as there is until one parent is used up.
        seed: of the choice of documents and of their order.
    """
    if check_name(name, "corpus") in BUILT_IN or is_on_hub(name):
        raise ValueError(f"{name!r} is the name of another corpus: choose one for the mixture")
    for what, cap in (("documents", documents), ("bytes", size)):
        if cap is not None and cap < 1:
            raise ValueError(f"a mixture of {cap} {what} holds nothing: it should be 1 or more")
    if documents is not None and size is not None:
        raise ValueError("a mixture is of so many documents or of so many bytes: give one of both")
    if seed < 0:
        raise ValueError(f"the seed of a mixture is 0 or more, not {seed}")
    total = sum(weights.values())
    parts = [Part(open_corpus(parent, workspace), weight / total) for parent, weight in sorted(weights.items())]
    sizes = {split: [part.sizes(split) for part in parts] for split in SPLITS}
    bytes_of = {"train": budget(parts, sizes["train"], documents, size)}
    bytes_of["validation"] = most(parts, sizes["validation"])
    if documents or size:
        bytes_of["validation"] = min(bytes_of["validation"], round(bytes_of["train"] * VALIDATION_FRACTION))
    chosen = {split: choose(parts, sizes[split], bytes_of[split], (seed, i)) for i, split in enumerate(SPLITS)}
    return write(name, parts, chosen, bytes_of, seed, workspace, say)


def most(parts: list[Part], sizes: list[np.ndarray]) -> int:
    """The bytes at which the first parent is used up."""
    return int(min(one.sum() / part.weight for part, one in zip(parts, sizes, strict=True)))


def budget(parts: list[Part], sizes: list[np.ndarray], documents: int | None, size: int | None) -> int:
    """Bytes of the training split. Raises ValueError that names the parent which has too little."""
    limit = most(parts, sizes)
    if documents is not None:  # so many bytes hold `documents` of the parents' mean lengths
        per_byte = sum(part.weight / one.mean() for part, one in zip(parts, sizes, strict=True))
        size = round(documents / per_byte)
    if size is None or size <= limit:
        return limit if size is None else size
    short, has = min(
        ((part, int(one.sum())) for part, one in zip(parts, sizes, strict=True)),
        key=lambda pair: pair[1] / pair[0].weight,
    )
    raise ValueError(
        f"{short.corpus.name} has {has:,} bytes of training text, and {short.weight:.3g} of {size:,} are more; no text "
        f"is taken twice: at most {limit:,} bytes can be mixed with these weights"
    )


Taken = tuple[int, int, int | None]
"""A document of a mixture: number of its parent, its own number there, and after how many bytes it is cut, if it is."""


def choose(parts: list[Part], sizes: list[np.ndarray], total: int, seed: tuple[int, int]) -> list[Taken]:
    """The documents of one split, in their order in the mixture."""
    rng = np.random.default_rng(seed)
    taken: list[Taken] = []
    for number, (part, lengths) in enumerate(zip(parts, sizes, strict=True)):
        taken += [(number, *one) for one in fill(lengths, round(total * part.weight), rng.permutation(len(lengths)))]
    return [taken[i] for i in rng.permutation(len(taken))]


def fill(lengths: np.ndarray, target: int, order: np.ndarray) -> Iterator[tuple[int, int | None]]:
    """(number, None or after how many bytes to cut) of documents in an order, until `target` bytes are full."""
    left = target
    for index in map(int, order):
        length = int(lengths[index])
        if length <= left:
            yield index, None
            left -= length
        elif length > LONG * target:
            if left:
                yield index, left
            return
        else:
            if length - left < left:
                yield index, None
            return


def write(
    name: str,
    parts: list[Part],
    chosen: dict[str, list[Taken]],
    bytes_of: dict[str, int],
    seed: int,
    workspace: Workspace,
    say,
) -> Corpus:
    """The snapshot, found again where it is there."""
    parents = [
        {"name": part.corpus.name, "sha256": part.corpus.sha256, "weight": part.weight, "documents": {}, "bytes": {}}
        for part in parts
    ]
    texts: dict[str, list[str]] = {}
    for split in SPLITS:
        drawn = list(read(parts, chosen[split], split))
        if not drawn:
            raise ValueError(f"{bytes_of[split]:,} bytes are too few for a mixture: nothing is left for {split}")
        texts[split] = [text for _, text in drawn]
        for number, parent in enumerate(parents):
            own = [text for one, text in drawn if one == number]
            parent["documents"][split] = len(own)
            parent["bytes"][split] = sum(len(text.encode()) for text in own)
    sizes = [sum(parent["bytes"][split] for parent in parents) for split in SPLITS]
    how = {"kind": "mixed", "seed": seed, "fraction": sizes[1] / sum(sizes), "wanted_bytes": bytes_of}
    how["weights"] = [part.weight for part in parts]
    sources = [{"name": one["name"], "bytes": sum(one["bytes"].values()), "sha256": one["sha256"]} for one in parents]
    licences = dict.fromkeys(part.corpus.manifest["licence"] for part in parts)
    return find_or_make(
        name, Ingredients(sources, how, lambda: (texts, None)), " + ".join(licences), workspace, "", say, parents
    )


def read(parts: list[Part], chosen: list[Taken], split: str) -> Iterator[tuple[int, str]]:
    """(number of the parent, text) of a split of the mixture, in order."""
    columns = [part.corpus.split(split).data.column("text") for part in parts]
    for number, index, end in chosen:
        text = columns[number][index].as_py()
        text = text if end is None else cut(text, end)
        if text.strip():  # what is left of a share may be less than a word
            yield number, text


def cut(text: str, end: int) -> str:
    """The beginning of a text, at most `end` bytes: up to the end of a line where one is near, else of a character."""
    head = text.encode()[:end].decode(errors="ignore")  # the bytes of a character that was cut are left out
    line = head.rfind("\n") + 1
    return head[:line] if line > len(head) * (1 - LONG) else head
