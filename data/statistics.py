"""Statistics of a corpus: lengths, duplicates, frequent words, and how much of the validation text is in training.

Uses numpy and tqdm; of ours `data.ngrams`, `data.preview`, `data.snapshots` and `data.workspace`. Measured once for a
snapshot and kept beside it as `statistics.json`. Texts are read one after another and only hashes of 64 bits are kept
of them, so that memory grows with the validation split and the distinct words, not with the text.
"""

import hashlib
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from data.ngrams import PIECE, N, Numbers, ngrams_of, places
from data.preview import documents, histogram, lengths
from data.snapshots import SPLITS, Corpus
from data.workspace import Workspace, one_maker, read_json, write_json

VERSION = 1  # raised when something is measured otherwise, so that what was kept is measured anew
FREQUENT = 40  # words listed
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
KEPT = "statistics.json"


def statistics(corpus: Corpus, workspace: Workspace | None = None) -> dict:
    """The statistics of a snapshot, measured where that has not been done.

    Args:
        workspace: in which the snapshot lies; of two who ask at once, one measures and the other waits.

    Returns:
        `splits`: by split `documents, characters, bytes, words, distinct_words, duplicates` (documents that came
        before in the same split), `lengths` (characters: `mean`, `quantiles`, `histogram`), `frequent` ([word, times]).
        `overlap`: see `overlap_of`. `seconds` it took.
    """
    return kept(corpus) or find_or_measure(corpus, workspace or Workspace(corpus.path.parent.parent))


def overlap(corpus: Corpus) -> dict:
    """How much of the validation split is in training, as `overlap_of` has it."""
    return statistics(corpus)["overlap"]


def kept(corpus: Corpus) -> dict | None:
    """What was measured before of exactly these texts; None where nothing was."""
    try:
        found = read_json(corpus.path / KEPT)
    except (OSError, ValueError):
        return None
    return found if (found.get("version"), found.get("sha256")) == (VERSION, corpus.sha256) else None


@one_maker(lambda corpus, **_: corpus.name)
def find_or_measure(corpus: Corpus, workspace: Workspace) -> dict:
    found = kept(corpus)  # by whoever held the lock before
    if found is None:
        found = measure(corpus)
        write_json(corpus.path / KEPT, found)
    return found


def measure(corpus: Corpus) -> dict:
    started = time.perf_counter()
    total = sum(corpus.manifest["splits"][split]["bytes"] for split in SPLITS)
    number = Numbers()
    with tqdm(
        total=total, desc=f"statistics of {corpus.name}", unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        validation = read_split(corpus, "validation", number, bar)
        train = read_split(corpus, "train", number, bar, wanted=np.unique(validation.ngrams))
    words = list(number)
    return {
        "version": VERSION,
        "sha256": corpus.sha256,
        "splits": {"train": train.report(words), "validation": validation.report(words)},
        "overlap": overlap_of(validation, train),
        "seconds": round(time.perf_counter() - started, 2),
    }


class Split:
    """What is kept of a split while it is read, and all that is known of it at the end.

    Attributes:
        hashes: of each document, (documents,) uint64.
        ngrams: their hashes in order, (n-grams,) uint64; of the training split those of `wanted` that it holds.
        sizes: n-grams of each document, (documents,).
        counts: how often each word comes, by its number.
    """

    def __init__(self, corpus: Corpus, name: str):
        self.counted = corpus.manifest["splits"][name]
        self.characters = lengths(corpus, name)
        self.hashes = np.zeros(self.counted["documents"], np.uint64)
        self.sizes = np.zeros(self.counted["documents"], np.int64)
        self.ngrams = np.zeros(0, np.uint64)
        self.counts = np.zeros(0, np.int64)

    def count(self, numbers: np.ndarray) -> None:
        found = np.bincount(numbers.astype(np.int64), minlength=len(self.counts))
        found[: len(self.counts)] += self.counts
        self.counts = found

    def report(self, words: list[str]) -> dict:
        most = np.argsort(-self.counts, kind="stable")[:FREQUENT]
        spread = dict(zip(map(str, QUANTILES), np.quantile(self.characters, QUANTILES).round().tolist(), strict=True))
        drawn = histogram(self.characters)
        return {
            **{what: self.counted[what] for what in ("documents", "characters", "bytes")},
            "words": int(self.counts.sum()),
            "distinct_words": int((self.counts > 0).sum()),
            "duplicates": len(self.hashes) - len(np.unique(self.hashes)),
            "lengths": {
                "mean": float(self.characters.mean()),
                "quantiles": {share: int(length) for share, length in spread.items()},
                "histogram": {
                    "edges": drawn.edges.tolist(),
                    "counts": drawn.counts.tolist(),
                    "beyond": drawn.beyond,
                },
            },
            "frequent": [[words[i], int(self.counts[i])] for i in most.tolist() if self.counts[i]],
        }


def read_split(corpus: Corpus, name: str, number: Numbers, bar: tqdm, wanted: np.ndarray | None = None) -> Split:
    """One pass over a split.

    Args:
        wanted: sorted n-grams; only which of these there are is kept. None: all n-grams are.
    """
    split, found = Split(corpus, name), []
    seen = None if wanted is None else np.zeros(len(wanted), bool)
    for first, texts in batches(corpus, name):
        data = [text.encode() for text in texts]
        here = slice(first, first + len(texts))
        split.hashes[here] = [int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "little") for one in data]
        numbers = [number.of(text) for text in texts]
        split.count(np.concatenate(numbers))
        ngrams, split.sizes[here] = ngrams_of(numbers)
        if wanted is None:
            found.append(ngrams)
        elif len(wanted):
            seen[places(ngrams, wanted)] = True
        bar.update(sum(map(len, data)))
    split.ngrams = np.concatenate(found) if wanted is None else wanted[seen]
    return split


def batches(corpus: Corpus, name: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first, documents) of about PIECE characters, or of one longer document."""
    first, texts, size = 0, [], 0
    for start, arrow in documents(corpus, name):
        for i, value in enumerate(arrow, start):
            texts.append(value.as_py())
            size += len(texts[-1])
            if size >= PIECE:
                yield first, texts
                first, texts, size = i + 1, [], 0
    if texts:
        yield first, texts


def overlap_of(validation: Split, train: Split) -> dict:
    """How much of the validation split is in training.

    Returns:
        Shares of the validation documents, 0 to 1: `exact`, those that are in training to the letter, and
        `ngram_documents`, those with any 13-gram of training; `ngrams`, the share of the validation split's 13-grams.
        Counts: `documents`, `short_documents` (fewer than 13 words, and so no 13-gram), `ngrams_counted`.
    """
    exact = np.isin(validation.hashes, train.hashes)
    hit = np.isin(validation.ngrams, train.ngrams)
    document = np.repeat(np.arange(len(validation.sizes)), validation.sizes)
    touched = np.bincount(document, weights=hit, minlength=len(validation.sizes)) > 0
    return {
        "n": N,
        "exact": float(exact.mean()),
        "ngram_documents": float(touched.mean()),
        "ngrams": float(hit.mean()) if len(hit) else 0.0,
        "documents": len(validation.sizes),
        "short_documents": int((validation.sizes == 0).sum()),
        "ngrams_counted": len(hit),
    }


def lines(found: dict) -> list[str]:
    """The statistics for a terminal."""
    names = list(found["splits"])
    shown = [f"{'':<22}" + "".join(f"{name:>16}" for name in names)]
    for what in ("documents", "bytes", "words", "distinct_words", "duplicates"):
        figures = "".join(f"{found['splits'][name][what]:>16,}" for name in names)
        shown.append(f"{what.replace('_', ' '):<22}{figures}")
    for share in map(str, QUANTILES):
        figures = "".join(f"{found['splits'][name]['lengths']['quantiles'][share]:>16,}" for name in names)
        shown.append(f"{quantile_name(share):<22}{figures}")
    shared = found["overlap"]
    shown += [
        "",
        f"of {shared['documents']:,} validation documents",
        f"  {shared['exact']:.2%} are in training to the letter",
        f"  {shared['ngram_documents']:.2%} share {shared['n']} words in a row with it "
        f"({shared['short_documents']:,} are shorter)",
        f"of their {shared['ngrams_counted']:,} {shared['n']}-grams {shared['ngrams']:.2%} are in training",
        "",
    ]
    for name in names:
        words = ", ".join(f"{word} {times:,}" for word, times in found["splits"][name]["frequent"][:15])
        shown.append(f"most frequent in {name}: {words}")
    return shown


def quantile_name(share: str) -> str:
    """A quantile of the documents' lengths in words."""
    named = {"0": "shortest, characters", "0.5": "median", "1": "longest"}
    return named.get(share, f"{float(share):.0%} are up to")
