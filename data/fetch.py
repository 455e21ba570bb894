"""From a dataset on the Hub to a frozen snapshot: streamed, capped, and continued where it was interrupted.

Uses `datasets` and tqdm; of ours the other modules of `data`. Rows are written to a partial folder as they come
(`data.partial`); when the cap is reached they become a snapshot like any other, and the folder goes. The snapshot is
the same, byte for byte, however often the fetch was interrupted.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
from tqdm import tqdm

from data.console import one_line
from data.fetch_progress import Progress
from data.hub_corpora import Request, command_words
from data.hub_source import Source, Streams, open_streams, quiet, told
from data.partial import Partial, Position
from data.snapshots import SPLITS, VALIDATION_FRACTION, Corpus, TextHash, open_snapshot, split_documents, write_snapshot
from data.workspace import Workspace, sha256_json

SHARD_BYTES = 16_000_000  # of text that is held before it is written: little memory, few files
SAVE_SECONDS = 10.0  # of work that a kill may lose


def find(request: Request, workspace: Workspace) -> Corpus | None:
    """The snapshot that this request made, whatever it is called by now; needs no network."""
    for path in sorted((workspace.root / "corpora").glob("[!.]*/manifest.json")):
        try:
            corpus = open_snapshot(path.parent)
        except ValueError:
            continue  # a damaged folder is nobody's answer
        hub = corpus.manifest.get("hub")
        if hub and corpus.manifest["made_from"] == request.key and is_revision(request.revision, hub):
            return corpus
    return None


def is_revision(wanted: str | None, hub: dict) -> bool:
    """Whether a snapshot is of the wanted commit, branch or tag; where none is named, what is there is meant."""
    return wanted is None or wanted == hub["asked_revision"] or (len(wanted) > 6 and hub["revision"].startswith(wanted))


def fetch(name: str, request: Request, workspace: Workspace, say: Callable[[str], object]) -> Corpus:
    """The snapshot of a request, called `name` or, where that is taken, `<name>-<6 hex>`; found, continued or made."""
    if corpus := find(request, workspace):
        return corpus
    partial = Partial.of(workspace, name, request)
    with partial.alone(lambda: say(f"another process is fetching {name}: waiting for it")):
        if corpus := find(request, workspace):
            return corpus
        partial.create(name, request)
        try:
            corpus = Fetch(name, request, partial, say).run()
        except KeyboardInterrupt:
            partial.tell("stopped")
            say(f"{name} is fetched in part; the same command goes on from what is kept")
            raise
        except Exception as error:
            if (partial.path / "position.json").is_file() or partial.log.is_file():
                partial.tell("failed", error=one_line(error))
            else:  # nothing has come and nobody looks on
                partial.remove()
            raise
        partial.remove()
        return corpus


class Fetch:
    """One fetch at work in its partial folder."""

    def __init__(self, name: str, request: Request, partial: Partial, say: Callable[[str], object]):
        self.name, self.request, self.partial, self.say = name, request, partial, say
        record, self.positions = partial.positions()
        self.source = Source(**record) if record else None
        self.begins = re.compile(request.begins) if request.begins else None

    def run(self) -> Corpus:
        if not (self.positions and all(one.complete for one in self.positions.values())):
            self.partial.tell("asking the Hub")
            streams = open_streams(self.request, self.source.revision if self.source else None)
            self.source = streams.source
            for split in streams.splits:
                self.positions.setdefault(split, Position())
            for split in streams.splits:
                self.stream(split, streams)
        return self.write()

    def stream(self, split: str, streams: Streams) -> None:
        """Take a split's rows, from where they were left, until its cap or its end."""
        at, kept = self.positions[split], []
        if at.complete:
            return
        if at.rows:
            self.say(f"{self.name}: going on with {split} after {at.documents:,} documents, {at.bytes / 1e6:,.1f} MB")
        size, saved = 0, time.monotonic()
        try:
            with quiet(), self.progress(split, streams.rows.get(split)) as progress:
                for text in self.rows(split, streams):
                    if self.begins and self.is_full(split) and self.begins.match(text):
                        break
                    kept += self.count(at, text)
                    if not self.begins and self.is_full(split):
                        break
                    progress.update()
                    size += len(text)
                    if size > SHARD_BYTES or time.monotonic() - saved > SAVE_SECONDS:
                        self.save(split, kept, streams)
                        kept, size, saved = [], 0, time.monotonic()
        except ValueError:  # the file or the network; what came before it is good
            self.save(split, kept, streams)
            raise
        at.complete = True
        self.save(split, kept, streams)

    def progress(self, split: str, rows: int | None) -> Progress:
        documents, size = self.request.cap(split)
        goals = {"bytes": size, "documents": documents, "rows": rows}
        return Progress(self.partial, f"{self.name} {split}", split, self.positions[split], goals)

    def rows(self, split: str, streams: Streams) -> Iterator[str]:
        """The texts that are not counted yet; after each, the position's state is where to go on."""
        stream, at = streams.splits[split], self.positions[split]
        behind = at.rows
        if at.state is not None and at.written_by == datasets.__version__:
            stream.load_state_dict(at.state)
            behind = 0
        rows = iter(stream)
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # of the network, of gzip, of Parquet, of JSON: each library has its own
                raise ValueError(told(self.request, streams.file_at(split), error)) from error
            if row is None:
                return
            if behind:  # another version of datasets wrote the state: go there row by row
                behind -= 1
                continue
            at.state, at.written_by = stream.state_dict(), datasets.__version__
            yield row[streams.source.field] or ""

    def count(self, at: Position, text: str) -> list[str]:
        """Count a row; the row itself, unless it is a document of nothing but white space."""
        at.rows += 1
        if self.begins:
            at.documents += self.begins.match(text) is not None
        elif not text.strip():
            at.empty += 1
            return []
        else:
            at.documents += 1
        at.bytes += len(text.encode())
        return [text]

    def is_full(self, split: str) -> bool:
        """Whether the cap is reached: the document that reaches it is the last, and whole."""
        documents, size = self.request.cap(split)
        at = self.positions[split]
        return (documents is not None and at.documents >= documents) or (size is not None and at.bytes >= size)

    def save(self, split: str, kept: list[str], streams: Streams) -> None:
        """Write what came since the last time, then that it is there."""
        if kept:
            self.partial.add_shard(split, self.positions[split], kept)
        self.partial.write_positions(dataclasses.asdict(streams.source), self.positions)

    def write(self) -> Corpus:
        """The snapshot of what was fetched."""
        self.partial.tell("writing")
        request, source = self.request, self.source
        texts = {split: self.documents(split) for split in self.positions}
        if source.validation:
            parts = dict(zip(SPLITS, (texts[request.split], texts[source.validation]), strict=True))
            sizes = [sum(map(len, parts[name])) for name in SPLITS]
            how = {"kind": "published", "seed": None, "fraction": sizes[1] / max(1, sum(sizes))}
        else:
            fraction = VALIDATION_FRACTION if request.fraction is None else request.fraction
            parts, how = split_documents(texts[request.split], fraction, request.seed)
        for name in SPLITS:
            if not parts[name]:
                raise ValueError(f"{request.dataset}: there is no text in what becomes the {name} split")
        what = ("dataset", "config", "split", "documents", "bytes")
        hub = {name: getattr(request, name) for name in what} | dataclasses.asdict(source)
        hub |= {"asked_revision": request.revision, "command": command_words(self.name, request)}
        return write_snapshot(
            self.free_path(), parts, how, self.sources(texts), request.key, source.licence, field=source.field, hub=hub
        )

    def documents(self, split: str) -> list[str]:
        """The documents of a split, put together where they are published in several rows."""
        at = self.positions[split]
        bar = tqdm(total=at.bytes, unit="B", unit_scale=True, desc=f"writing {split}", leave=False, disable=None)
        rows: list[list[str]] = []
        with bar:
            for text in self.partial.texts(split, at):
                if not (self.begins and rows) or self.begins.match(text):
                    rows.append([])
                rows[-1].append(text)
                bar.update(len(text))
        return [text for text in map("".join, rows) if text.strip()]

    def sources(self, texts: dict[str, list[str]]) -> list[dict]:
        """Where each split is published, and the hash of what was taken of it."""
        found = []
        for split, documents in texts.items():
            taken = TextHash()
            size = sum(len(taken.update(text)) for text in documents)
            name = " ".join(filter(None, (self.request.dataset, self.request.config, split)))
            url = f"hf://datasets/{self.request.dataset}@{self.source.revision}"
            found.append({"name": name, "url": url, "bytes": size, "sha256": taken.hexdigest()})
        return found

    def free_path(self) -> Path:
        """`<name>`, or `<name>-<6 hex>` where that is another text, which is kept."""
        room = self.partial.workspace.room("corpora")
        marks = (self.request.key, sha256_json([self.request.key, self.source.revision]))
        names = [self.name, *(f"{self.name}-{mark[:6]}" for mark in marks)]
        name = next((one for one in names if not (room / one).exists()), names[-1])
        if name != self.name:
            self.say(f"{self.name} is other text or another cap, and is kept: making {name}")
        return room / name
