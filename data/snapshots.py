"""A corpus at rest: two Parquet files of documents and the manifest that says what they are.

Uses `datasets` and pyarrow; of ours only `data.workspace`. A snapshot is written once, as a whole folder, and never
changed: runs refer to it by name and content hash. The hash is of the texts, not of the files, so that it is the same
whatever machine or version of Parquet wrote them.
"""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import yaml

from data.workspace import SCHEMA, Workspace, new_folder, read_json, sha256_json, write_json

SPLITS = ("train", "validation")
VALIDATION_FRACTION = 0.1  # where nothing else is asked for


@dataclass(frozen=True)
class Corpus:
    """A snapshot that was opened."""

    name: str
    path: Path
    manifest: dict

    @property
    def sha256(self) -> str:
        return self.manifest["sha256"]

    @property
    def floor(self) -> dict | None:
        """The corpus's own entropy, by split: `nats` in all, `nats_per_document`, `bits_per_byte`. None: not known."""
        return self.manifest["floor"]

    def split(self, name: str) -> datasets.Dataset:
        """The documents, in the column `text`; with `log_prob` where the corpus knows it."""
        assert name in SPLITS, f"no split {name!r}"
        # read_table instead of load_dataset, which would leave a second copy in the Hugging Face cache
        return datasets.Dataset(pyarrow.parquet.read_table(self.path / f"{name}.parquet"))

    def texts(self, name: str, limit: int | None = None) -> Iterator[str]:
        """The documents in order; with a limit, a sample of about so many characters, spread over all of them."""
        step = 1 if limit is None else max(1, math.ceil(self.manifest["splits"][name]["characters"] / limit))
        file = pyarrow.parquet.ParquetFile(self.path / f"{name}.parquet")
        batches = (batch.column(0).to_pylist() for batch in file.iter_batches(batch_size=1000, columns=["text"]))
        for text in islice(chain.from_iterable(batches), None, None, step):
            yield text[:limit]  # a single long text is sampled from its beginning


def open_snapshot(path: Path) -> Corpus:
    try:
        return Corpus(path.name, path, read_json(path / "manifest.json"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a corpus snapshot: {error}") from error


class TextHash:
    """SHA-256 of a sequence of documents; each is preceded by its length, so that joining two is another sequence."""

    def __init__(self):
        self.hash = hashlib.sha256()

    def update(self, text: str) -> bytes:
        data = text.encode()
        self.hash.update(len(data).to_bytes(8, "little"))
        self.hash.update(data)
        return data

    def hexdigest(self) -> str:
        return self.hash.hexdigest()


def check_fraction(fraction: float) -> float:
    """The share itself when it can be held out."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction {fraction:g} should be a share of the text between 0 and 1, such as 0.1")
    return fraction


def split_documents(documents: list[str], fraction: float, seed: int) -> tuple[dict[str, list[str]], dict]:
    """The documents by split, each in its own order, and how it was done, for the manifest.

    By document; but one that is longer than all that is to be held out gives its last part instead, so that neither a
    single long text nor a book among notes upsets the shares, and it is validated on what comes after what was learnt.
    """
    wanted = check_fraction(fraction) * sum(map(len, documents))
    whole = [i for i, text in enumerate(documents) if len(text) <= wanted]
    order = np.random.default_rng(seed).permutation(whole)
    held_out = set(order[: round(len(whole) * fraction)].tolist())
    parts = {"train": [], "validation": []}
    for i, text in enumerate(documents):
        end = len(text) if len(text) <= wanted else math.floor(len(text) * (1 - fraction))
        end = 0 if i in held_out else end
        parts["train"].append(text[:end])
        parts["validation"].append(text[end:])
    parts = {name: [text for text in texts if text] for name, texts in parts.items()}
    if not all(parts.values()):
        raise ValueError(f"{sum(map(len, documents)):,} characters are too few to hold out a share of {fraction:g}")
    tails = len(documents) - len(whole)
    kind = "by-document" if whole else "contiguous-tail"
    return parts, {"kind": kind, "seed": seed if whole else None, "fraction": fraction, "tails": tails}


def write_snapshot(
    path: Path,
    parts: dict[str, list[str]],
    how: dict,
    sources: list[dict],
    made_from: str,
    licence: str,
    log_probs: dict[str, list[float]] | None = None,
    field: str | None = None,
    parents: Iterable[dict] = (),
    hub: dict | None = None,
) -> Corpus:
    """Make the folder `path`, or leave nothing.

    Args:
        how: the split: kind, seed, fraction, and of how many documents the last part was held out.
        made_from: one hash for sources and split, by which this snapshot is found again.
        log_probs: natural logarithm of each document's probability, for a corpus that knows it.
        field: the field of the sources that was asked for, where they have several.
        parents: name and hash of the snapshots this one was made from, and their weights in it.
        hub: of a dataset on the Hub: its id, commit, configuration, split, column, and where it was capped.
    """
    splits = {name: count_texts(parts[name]) for name in SPLITS}
    manifest = {
        "schema": SCHEMA,
        "name": path.name,
        "sha256": sha256_json({name: splits[name]["sha256"] for name in SPLITS}),
        "sources": sources,
        "field": field,
        "made_from": made_from,
        "split": how,
        "splits": splits,
        "floor": {name: floor_of(log_probs[name], splits[name]["bytes"]) for name in SPLITS} if log_probs else None,
        "licence": licence,
        "parents": list(parents),
        "hub": hub,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with new_folder(path) as folder:
        for name in SPLITS:
            columns = {"text": parts[name]} | ({"log_prob": log_probs[name]} if log_probs else {})
            write_parquet(columns, folder / f"{name}.parquet")
        write_json(folder / "manifest.json", manifest)
    return Corpus(path.name, path, manifest)


def delete_snapshot(corpus: Corpus, workspace: Workspace) -> None:
    """Remove a snapshot. Raises ValueError that names the runs which refer to it, where there are any."""
    runs = runs_on(corpus, workspace)
    if runs:
        named = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
        raise ValueError(f"{corpus.name} is kept, because runs refer to it: {named}; delete these first")
    # out of sight in one step, so that nobody opens half a snapshot while its files go
    aside = Path(tempfile.mkdtemp(dir=corpus.path.parent, prefix=f".{corpus.name}.old."))
    corpus.path.rename(aside / corpus.name)
    shutil.rmtree(aside)


def runs_on(corpus: Corpus, workspace: Workspace) -> list[str]:
    """Ids of the runs trained on exactly this snapshot, and of those that wait to be and name it in their recipe."""
    found = []
    for path in sorted((workspace.root / "runs").glob("[!.]*/run.json")):
        try:
            record = read_json(path)
            used = record["inputs"].get("corpus")
            if used is None and not record["ended_at"]:  # its data is not prepared yet
                recipe = yaml.safe_load((path.parent / "recipe.yaml").read_text(encoding="utf-8"))
                used = {"name": recipe["data"]["corpus"], "sha256": corpus.sha256}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            continue  # what cannot be read refers to nothing
        if used and (used.get("name"), used.get("sha256")) == (corpus.name, corpus.sha256):
            found.append(path.parent.name)
    return found


def write_parquet(columns: dict[str, list], path: Path) -> None:
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # its bar names neither the corpus nor the phase
    try:
        datasets.Dataset.from_dict(columns).to_parquet(path)
    finally:
        if shown:
            datasets.enable_progress_bars()


def count_texts(texts: list[str]) -> dict:
    texts_hash = TextHash()
    size = sum(len(texts_hash.update(text)) for text in texts)
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "bytes": size,
        "sha256": texts_hash.hexdigest(),
    }


def floor_of(log_probs: list[float], size: int) -> dict:
    """Entropy of a split under the process that wrote it: no model's expected loss is lower."""
    nats = -math.fsum(log_probs)
    return {"nats": nats, "nats_per_document": nats / len(log_probs), "bits_per_byte": nats / math.log(2) / size}
