"""Examples as token ids with the answers marked: encoded once, memory-mapped ever after.

Uses numpy and tqdm; of ours `data` and here `finetune.{examples,rendering,cutting,replay}`. The folder's name holds a
hash of all that decides the ids: examples, tokenizer, template, context, what becomes of long ones, what is replayed.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.snapshots import SPLITS
from data.workspace import SCHEMA, Workspace, new_folder, one_maker, read_json, sha256_json, write_json
from finetune.cutting import Cutter, Pair
from finetune.examples import Examples, ExamplesRecipe, open_examples
from finetune.rendering import Renderer, renderer_of
from finetune.replay import Replay, open_replay

ENCODING = 1  # raised when the same examples are encoded otherwise
CHUNK = 512  # examples encoded at once: enough work for all cores, little memory
ARRAYS = ("ids", "scored", "starts")


@dataclass(frozen=True)
class Encoded:
    """A split's examples end to end."""

    ids: np.ndarray  # (N,) int32
    scored: np.ndarray  # (N,) bool: part of an answer, and a target
    starts: np.ndarray  # (E + 1,) int64: where each begins, and the end of the last

    def __len__(self) -> int:
        return len(self.starts) - 1

    def example(self, i: int) -> Pair:
        """(ids, scored) of example `i`."""
        place = slice(int(self.starts[i]), int(self.starts[i + 1]))
        return self.ids[place], self.scored[place]


@dataclass(frozen=True)
class Prepared:
    """Examples and their tokens. `cut` and `dropped` count those that were too long."""

    examples: Examples
    splits: dict[str, Encoded]
    cut: int
    dropped: int
    replay: dict | None = None
    """Name and hash of what is mixed into the training split, and `examples`, how many stand at its end."""


def prepare(data: ExamplesRecipe, tokenizer, context: int, workspace: Workspace) -> Prepared:
    """The examples of a recipe in this tokenizer's ids, encoded now unless that has been done.

    Args:
        context: the most tokens of an example.

    Raises:
        ValueError: for a source that cannot be read, an example that the chat template refuses, or one that is longer
            than the context where that is not allowed; the sentence names file and line.
    """
    examples, renderer = open_examples(data, workspace), renderer_of(tokenizer)
    return find_or_encode(examples, open_replay(data, workspace), renderer, data.too_long, context, workspace)


@one_maker(lambda examples, **_: examples.name)
def find_or_encode(
    examples: Examples, replay: Replay | None, renderer: Renderer, too_long: str, context: int, workspace: Workspace
) -> Prepared:
    key = {
        "encoding": ENCODING,
        "examples": examples.sha256,
        "tokenizer": renderer.sha256,
        "context": context,
        "too_long": too_long,
        "replay": replay and replay.record,
    }
    path = workspace.room("tokens") / f"{examples.name}-{sha256_json(key)[:12]}"
    if (path / "meta.json").is_file():
        return opened(path, examples)
    started = time.perf_counter()
    with new_folder(path) as folder:
        counts = encode_splits(folder, examples, replay, renderer, too_long, context)
        named = {"name": examples.name, "sha256": examples.sha256}
        write_json(folder / "meta.json", {"schema": SCHEMA, "key": key, "examples": named, **counts})
    prepared = opened(path, examples)
    say(prepared, time.perf_counter() - started)
    return prepared


def encode_splits(
    folder: Path, examples: Examples, replay: Replay | None, renderer: Renderer, too_long: str, context: int
) -> dict:
    """Write both splits, what is replayed behind the training examples; what was cut, dropped and replayed."""
    cutter, other_cutter, replayed = Cutter(context, too_long), Cutter(context, too_long), None
    for split in SPLITS:
        pairs = list(encode(examples.split(split), renderer, cutter, split))
        if cutter.refused:  # to be told when all have been seen
            continue
        if not pairs:
            raise ValueError(
                f"every {split} example of {examples.name} is longer than the context of {context:,} tokens: raise "
                "--train.context"
            )
        if split == "train" and replay:
            again = list(replay.pairs(len(pairs), renderer, other_cutter))
            replayed = {"name": replay.name, "sha256": replay.sha256, "examples": len(again)}
            pairs += again
        write_split(folder, split, pairs)
    cutter.check()
    return {"cut": cutter.cut, "dropped": cutter.dropped, "replay": replayed}


def opened(path: Path, examples: Examples) -> Prepared:
    meta = read_json(path / "meta.json")
    splits = {}
    for split in SPLITS:
        splits[split] = Encoded(*(np.load(path / f"{split}.{name}.npy", mmap_mode="r") for name in ARRAYS))
    return Prepared(examples, splits, meta["cut"], meta["dropped"], meta["replay"])


def encode(examples: Sequence[dict], renderer: Renderer, cutter: Cutter, what: str) -> Iterator[Pair]:
    """Every example that is kept, in order."""
    with tqdm(total=len(examples), desc=f"encoding {what}", unit=" examples", leave=False, disable=None) as progress:
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            pairs = renderer.encode([renderer.segments(example) for example in chunk])
            kept = (cutter(example, pair) for example, pair in zip(chunk, pairs, strict=True))
            yield from (pair for pair in kept if pair is not None)
            progress.update(len(chunk))


def write_split(folder: Path, split: str, pairs: Iterable[Pair]) -> None:
    ids, scored = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    starts = np.cumsum([0, *(len(one) for one, _ in pairs)], dtype=np.int64)
    for name, array in zip(ARRAYS, (ids, scored, starts), strict=True):
        np.save(folder / f"{split}.{name}.npy", array)


def say(prepared: Prepared, seconds: float) -> None:
    counts = " + ".join(f"{len(one.ids):,}" for one in prepared.splits.values())
    scored = sum(int(one.scored.sum()) for one in prepared.splits.values())
    left = [f"{count:,} {word}" for count, word in ((prepared.cut, "cut"), (prepared.dropped, "dropped")) if count]
    again = [f"{prepared.replay['examples']:,} of {prepared.replay['name']} replayed"] if prepared.replay else []
    parts = [f"{counts} tokens", f"{scored:,} of them scored", *left, *again, f"encoded in {seconds:.1f} s"]
    print(f"tokens     {prepared.examples.name}: {', '.join(parts)}", file=sys.stderr)
