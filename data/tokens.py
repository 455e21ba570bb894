"""Packed tokens: a corpus as one array of ids a split, and the batches that training takes from it.

Uses numpy; of ours the other modules of `data`. Packed once for each pair of hashes, memory-mapped ever after. A
split's stream is its documents one after another, each followed by the end of a document. Read as a ring, every
document is preceded by that end, the first one by the last one's: `<|endoftext|>` begins a text as well as it ends one.
"""

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.encoding import Encoder
from data.snapshots import SPLITS, Corpus, TextHash
from data.tokenizer import Tokenizer
from data.workspace import SCHEMA, Workspace, new_folder, one_maker, read_json, sha256_json, write_json

STARTS = ("document", "anywhere")


@dataclass(frozen=True)
class Tokens:
    """A packed corpus. `meta["splits"]` holds `tokens`, `documents`, `bytes` of text and `floor` in nats per token."""

    path: Path
    meta: dict

    @property
    def sha256(self) -> str:
        return self.meta["sha256"]

    @property
    def eos(self) -> int:
        return self.meta["eos"]

    def split(self, name: str) -> np.ndarray:
        """The ids of a split, memory-mapped."""
        return np.memmap(self.path / f"{name}.bin", dtype=self.meta["dtype"], mode="r")

    def starts(self, name: str) -> np.ndarray:
        """Where in the stream each document begins."""
        return np.load(self.path / f"{name}.starts.npy", mmap_mode="r")


@one_maker(lambda corpus, tokenizer, **_: f"{corpus.name}-{tokenizer.name}")
def pack(corpus: Corpus, tokenizer: Tokenizer, workspace: Workspace) -> Tokens:
    """The corpus in this tokenizer's ids; encoded now unless that has been done for the same pair of hashes."""
    hashes = {"corpus": corpus.sha256, "tokenizer": tokenizer.sha256}
    room = workspace.room("tokens")
    name = f"{corpus.name}-{tokenizer.name.replace('/', '--')}"
    # names of folders and Hub tokenizers may repeat with other content: that pair gets its hash behind the name
    candidates = [room / name, room / f"{name}-{sha256_json(hashes)[:6]}"]
    for path in candidates:
        if (path / "meta.json").is_file():
            tokens = Tokens(path, read_json(path / "meta.json"))
            if {key: tokens.meta[key]["sha256"] for key in hashes} == hashes:
                check_sizes(tokens)
                return tokens
    path = candidates[0] if not candidates[0].exists() else candidates[1]
    started = time.perf_counter()
    vocab_size = 1 + max(tokenizer.tokenizer.get_vocab().values())  # ids of a foreign tokenizer may have gaps
    meta = {
        "schema": SCHEMA,
        "corpus": {"name": corpus.name, "sha256": corpus.sha256},
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "vocab_size": vocab_size,
        "eos": tokenizer.eos,
        "dtype": "uint16" if vocab_size <= 1 << 16 else "uint32",
    }
    with new_folder(path) as folder:
        meta["splits"] = {split: pack_split(corpus, split, tokenizer, folder, meta["dtype"]) for split in SPLITS}
        meta["sha256"] = sha256_json({split: meta["splits"][split]["sha256"] for split in SPLITS})
        write_json(folder / "meta.json", meta)
    counts = " + ".join(f"{meta['splits'][split]['tokens']:,}" for split in SPLITS)
    print(f"tokens     {path.name}: {counts}, encoded in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return Tokens(path, meta)


def pack_split(corpus: Corpus, split: str, tokenizer: Tokenizer, folder: Path, dtype: str) -> dict:
    """Write one split's ids and document starts; what there is to know about them."""
    facts = corpus.manifest["splits"][split]
    texts_hash, ids_hash, ends, total = TextHash(), hashlib.sha256(), [np.zeros(1, dtype=np.int64)], 0
    with (
        (folder / f"{split}.bin").open("wb") as file,
        tqdm(total=facts["bytes"], unit="B", unit_scale=True, desc="encoding", leave=False, disable=None) as progress,
    ):

        def watched() -> Iterator[str]:
            for text in corpus.texts(split):
                progress.update(len(texts_hash.update(text)))
                yield text

        for ids, chunk_ends in Encoder(tokenizer.tokenizer.backend_tokenizer).chunks(watched(), end=tokenizer.eos):
            data = ids.astype(dtype).tobytes()
            file.write(data)
            ids_hash.update(data)
            ends.append(chunk_ends + total)
            total += len(ids)
    if texts_hash.hexdigest() != facts["sha256"]:
        raise ValueError(
            f"{corpus.path / split}.parquet is not what its manifest says: delete {corpus.path} and make it again"
        )
    np.save(folder / f"{split}.starts.npy", np.concatenate(ends)[:-1])
    # text that the tokenizer changes has another entropy than what the corpus knows: less
    known = corpus.floor and not (tokenizer.report or {}).get("loses_information")
    floor = corpus.floor[split]["nats"] / total if known else None
    return {
        "tokens": total,
        "documents": facts["documents"],
        "bytes": facts["bytes"],
        "floor": floor,  # nats per token, the ends of documents among them
        "sha256": ids_hash.hexdigest(),
    }


def check_sizes(tokens: Tokens) -> None:
    for split in SPLITS:
        wanted = tokens.meta["splits"][split]["tokens"] * np.dtype(tokens.meta["dtype"]).itemsize
        file = tokens.path / f"{split}.bin"
        if not file.is_file() or file.stat().st_size != wanted:
            raise ValueError(f"{file} is not whole: delete the folder {tokens.path}, and it will be packed again")


@dataclass(frozen=True)
class Batches:
    """The global batch of any step: a pure function of (seed, data_step), without repetition within an epoch.

    Nothing to checkpoint: any step can be asked for at any time, and ranks and micro-batches take slices of its rows.
    A row is `context` + 1 ids of the ring, so that each of its `context` positions has a target.

    Args:
        ids: the stream of a split.
        starts: where its documents begin.
        start: `anywhere` lays windows end to end round the ring, from another place each epoch; `document` has every
            row begin with a document (after the end of the one before it, so that its first word is predicted too).
    """

    ids: np.ndarray
    starts: np.ndarray
    context: int
    batch_size: int
    seed: int
    start: str = "anywhere"
    _epochs: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.start not in STARTS:
            raise ValueError(f"start {self.start!r} is not one of {', '.join(STARTS)}")
        if len(self.ids) <= self.context:
            raise ValueError(
                f"the training split has {len(self.ids):,} tokens, shorter than one context of {self.context:,}"
                f" and its target; choose train.context ≤ {len(self.ids) - 1:,}"
            )

    @cached_property
    def rows_per_epoch(self) -> int:
        return len(self.starts) if self.start == "document" else len(self.ids) // self.context

    @property
    def steps_per_epoch(self) -> float:
        return self.rows_per_epoch / self.batch_size

    def at(self, data_step: int) -> np.ndarray:
        """(batch_size, context + 1), int64."""
        positions = data_step * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(positions, self.rows_per_epoch)
        first = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            first[chosen] = self._order(int(epoch))[places[chosen]]
        return take_rows(self.ids, first, self.context + 1)

    def batch(self, data_step: int) -> dict[str, np.ndarray]:
        """The same as what a model is given: see `as_batch`."""
        return as_batch(self.at(data_step))

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a model reads in one step."""
        return self.batch_size * self.context

    def _order(self, epoch: int) -> np.ndarray:
        """Where each row of an epoch begins, in the order in which they come."""
        if epoch not in self._epochs:
            # counter-based, so that any epoch is reached without the ones before it
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            order = random.permutation(self.rows_per_epoch)
            if self.start == "document":
                order = np.asarray(self.starts)[order] - 1
            else:
                order = order * self.context + random.integers(len(self.ids))
            while len(self._epochs) > 1:  # a batch touches two epochs at most, but where it is larger than one
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = order % len(self.ids)
        return self._epochs[epoch]


def as_batch(rows: np.ndarray) -> dict[str, np.ndarray]:
    """(B, T+1) ids -> `input_ids` and `labels`, (B, T) each; the label of a token is the one after it."""
    return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}


def take_rows(ids: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """Rows of `length` ids from each place in `first`, going on at the beginning where the stream ends."""
    places = first[:, None] + np.arange(length)
    return np.asarray(ids).take(places, mode="wrap").astype(np.int64)


def windows(ids: np.ndarray, context: int) -> Iterator[np.ndarray]:
    """The whole split in windows of `context` + 1 ids sharing their ends: every id but the first is a target once."""
    for i in range(0, len(ids) - 1, context):
        yield np.asarray(ids[i : i + context + 1], dtype=np.int64)


def documents(ids: np.ndarray, starts: np.ndarray) -> Iterator[np.ndarray]:
    """Every document whole, from the end of a document before it to its own: all that the corpus's floor counts."""
    bounds = np.append(starts, len(ids))
    for begin, end in pairwise(bounds):
        yield take_rows(ids, np.array([begin - 1]), end - begin + 1)[0]
