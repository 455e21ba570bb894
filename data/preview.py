"""What a person looks at in a corpus: its counts, how long its documents are, and the documents themselves, in pages.

Uses pyarrow and numpy; of ours `data.snapshots`, `data.builtin` and `data.workspace`. The Parquet files are read in
small batches and from where they are needed, so that a corpus of any size fills no memory.
"""

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from data.builtin import BUILT_IN
from data.snapshots import SPLITS, Corpus
from data.workspace import Workspace

BATCH = 256  # documents read at a time: little memory even where each is a chapter
PAGE = 5  # documents a page
SHOWN = 1_200  # characters of a document that are shown
BEFORE = 200  # of them before what was searched for
SEARCH_BYTES = 500_000_000  # of text that one search reads, some seconds; going on is one more click
BARS = 30  # of a histogram
CROWD = 0.99  # share of the documents that a histogram must hold; a few giants would flatten it


@dataclass(frozen=True)
class Excerpt:
    """A document, or the part of it that is shown."""

    number: int  # in its split, from 0
    text: str
    begin: int  # where in the document `text` begins, in characters
    characters: int  # of the whole document

    @property
    def is_whole(self) -> bool:
        return len(self.text) == self.characters


@dataclass(frozen=True)
class Page:
    """Some documents; `next` is the number to go on from, None at the end; `looked` is how many were gone through."""

    excerpts: list[Excerpt]
    next: int | None
    looked: int


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` documents have at least `edges[i]` and less than `edges[i + 1]` characters; `beyond` have more."""

    edges: np.ndarray
    counts: np.ndarray
    beyond: int


def documents(corpus: Corpus, split: str, start: int = 0) -> Iterator[tuple[int, pyarrow.Array]]:
    """(number of the first, texts) of successive batches from document `start` on; groups before it are not read."""
    file = pyarrow.parquet.ParquetFile(corpus.path / f"{split}.parquet", memory_map=True)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    skipped = int(np.searchsorted(ends, start, side="right"))  # groups that end before it
    first = int(ends[skipped - 1]) if skipped else 0
    for batch in file.iter_batches(BATCH, row_groups=list(range(skipped, len(sizes))), columns=["text"]):
        offset = max(0, start - first)
        if offset < len(batch):
            yield first + offset, batch.column(0).slice(offset)
        first += len(batch)


def page(corpus: Corpus, split: str, start: int = 0, search: str = "", size: int = PAGE) -> Page:
    """The documents from `start` on; with `search`, those of them that hold it, in whichever case it is written."""
    total = corpus.manifest["splits"][split]["documents"]
    if not 0 <= start < total:
        raise ValueError(f"there is no document {start + 1:,}: {corpus.name} has 1 to {total:,} in {split}")
    found: list[Excerpt] = []
    read = 0
    for first, texts in documents(corpus, split, start):
        if search:
            hits = pyarrow.compute.match_substring(texts, search, ignore_case=True).to_numpy(zero_copy_only=False)
            places = np.flatnonzero(hits).tolist()
        else:
            places = range(len(texts))
        for place in places:
            if len(found) == size:  # one more would do: so there is a next page
                return Page(found, first + place, first + place - start)
            found.append(excerpt(first + place, texts[place].as_py(), search))
        read += texts.nbytes
        if read > SEARCH_BYTES and first + len(texts) < total:
            return Page(found, first + len(texts), first + len(texts) - start)
    return Page(found, None, total - start)


def excerpt(number: int, text: str, search: str = "") -> Excerpt:
    """The beginning of a document, or the surroundings of what was searched for."""
    hit = re.search(re.escape(search), text, re.IGNORECASE) if search else None
    begin = max(0, min(hit.start() - BEFORE, len(text) - SHOWN)) if hit else 0
    return Excerpt(number, text[begin : begin + SHOWN], begin, len(text))


def lengths(corpus: Corpus, split: str) -> np.ndarray:
    """Characters of every document, (documents,) int64; measured once for each snapshot."""
    return _lengths(corpus.path, corpus.sha256, split)


@lru_cache(maxsize=32)
def _lengths(path: Path, sha256: str, split: str) -> np.ndarray:
    corpus = Corpus(path.name, path, {"sha256": sha256})
    counts = [pyarrow.compute.utf8_length(texts).to_numpy() for _, texts in documents(corpus, split)]
    return np.concatenate(counts).astype(np.int64)


def histogram(counts: np.ndarray) -> Histogram:
    """Of lengths, up to the longest or, where a few are much longer than all others, up to where the crowd ends."""
    crowd = float(np.quantile(counts, CROWD))
    end = int(counts.max()) if counts.max() <= 2 * crowd else int(crowd)
    low = int(counts.min())
    width = math.ceil((end + 1 - low) / BARS)  # whole characters, or some bars would hold one length more than others
    edges = np.arange(low, end + 1 + width, width)
    return Histogram(edges, np.histogram(counts[counts <= end], edges)[0], int((counts > end).sum()))


def spread(counts: np.ndarray) -> dict[str, int]:
    quantiles = np.quantile(counts, [0, 0.5, 1])
    return dict(zip(("shortest", "median", "longest"), map(int, quantiles), strict=True))


def summary(corpus: Corpus) -> str:
    splits = corpus.manifest["splits"]
    counts = " + ".join(f"{splits[name]['documents']:,}" for name in SPLITS)
    size = sum(splits[name]["bytes"] for name in SPLITS)
    return f"{corpus.name}: {counts} documents (train + validation), {size / 1e6:,.2f} MB"


def how_split(corpus: Corpus) -> str:
    """How the validation text was chosen, in words."""
    how = corpus.manifest["split"]
    of_long = (
        f", the last part of {how['tails']:,} long ones" if how.get("tails") and how["kind"] == "by-document" else ""
    )
    seed = how["seed"]  # none where nothing was drawn; of generated text one for each split
    seeds = ", ".join(f"{name} {one}" for name, one in seed.items()) if isinstance(seed, dict) else seed
    drawn = "" if seed is None else f", seed {seeds}"
    return f"{how['kind']}{of_long}, {how['fraction']:.3g} held out{drawn}"


def commands(corpus: Corpus, workspace: Workspace) -> list[str]:
    """What makes the snapshot in a terminal, where one command does, and what shows it."""
    manifest, at = corpus.manifest, where(workspace)
    shown = f"python -m data.corpora show {corpus.name}{at}"
    if corpus.name in BUILT_IN:
        return [f"python -m data.corpora fetch {corpus.name}{at}", shown]
    split = manifest["split"]
    if hub := manifest.get("hub"):
        return [f"python -m data.corpora {shlex.join(hub['command'])}{at}", shown]
    if split["kind"] == "mixed":
        words = [f"{one['name']}={one['weight']:g}" for one in manifest["parents"]]
        words += [f"--bytes={split['wanted_bytes']['train']}", f"--seed={split['seed']}"]
        return [f"python -m data.corpora mix {corpus.name} {shlex.join(words)}{at}", shown]
    if split["kind"] not in ("by-document", "contiguous-tail") or any("url" in one for one in manifest["sources"]):
        return [shown]
    paths = list(dict.fromkeys(one["name"].split("/")[0] for one in manifest["sources"]))  # in their order
    words = ["add", corpus.name, *paths[:5], *(["..."] if len(paths) > 5 else [])]
    words += ["--validation-fraction", f"{split['fraction']:g}"]
    words += ["--seed", str(split["seed"])] if split["seed"] else []
    words += ["--field", manifest["field"]] if manifest.get("field") else []
    return [f"python -m data.corpora {shlex.join(words)}{at}", shown]


def stamp(workspace: Workspace, room: str) -> int:
    """Another number whenever something has been made or deleted in a room of the workspace."""
    folder = workspace.root / room
    return folder.stat().st_mtime_ns if folder.is_dir() else 0


def where(workspace: Workspace) -> str:
    """The flag that names the workspace, where a command would not find it by itself."""
    return "" if workspace.root == Workspace().root else f" --workspace {shlex.quote(str(workspace.root))}"


def describe(corpus: Corpus, count: int = 3) -> dict:
    """The manifest, how long its documents are, and the first `count` of them."""
    spreads = {name: spread(lengths(corpus, name)) for name in SPLITS}
    first = list(islice(corpus.texts("train"), count))
    return {**corpus.manifest, "characters_per_document": spreads, "first_documents": first}


def print_description(corpus: Corpus) -> None:
    facts = describe(corpus)
    print(f"{summary(corpus)}\n")
    print(f"{'split':<12}{'documents':>12}{'characters':>14}{'bytes':>14}   characters per document")
    for name in SPLITS:
        counts, of_one = facts["splits"][name], facts["characters_per_document"][name]
        range_ = f"{of_one['shortest']:,} to {of_one['longest']:,}, median {of_one['median']:,}"
        print(f"{name:<12}{counts['documents']:>12,}{counts['characters']:>14,}{counts['bytes']:>14,}   {range_}")
    print(f"\nsplit        {how_split(corpus)}")
    for name, floor in (facts["floor"] or {}).items():
        figures = f"{floor['bits_per_byte']:.4f} bits per byte, {floor['nats_per_document']:.2f} nats a document"
        print(f"floor        {name}: {figures}")
    print(f"licence      {facts['licence']}")
    for source in facts["sources"][:5]:
        print(f"source       {source['name']} (SHA-256 {source['sha256'][:12]})")
    if len(facts["sources"]) > 5:
        print(f"             and {len(facts['sources']) - 5:,} more")
    print(f"made         {facts['created_at']}, in {corpus.path}\nsha256       {facts['sha256']}")
    for text in facts["first_documents"]:
        print(f"\n--- {text[:400]}{' …' if len(text) > 400 else ''}")
