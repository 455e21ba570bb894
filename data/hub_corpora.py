"""Corpora on the Hugging Face Hub: one table, HUB, an entry each, and what a request for one of its datasets says.

Uses the other modules of `data`; no network. An entry names the real repository; any other dataset is
`hf:OWNER/NAME`. A request is all that decides which text a snapshot will hold: the same request is the same snapshot.
"""

import dataclasses
import re
from dataclasses import dataclass

from data.console import nearest
from data.snapshots import VALIDATION_FRACTION, check_fraction
from data.workspace import sha256_json

PREFIX = "hf:"  # before the id of a dataset, where a corpus is named
# one hundred million bytes are some twenty-five million tokens: more than an evening of a laptop, minutes of a network
CAP_BYTES = 100_000_000
UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
# WikiText has a row for each line; an article begins with ` = Title = `, its sections with two signs or more
WIKITEXT_TITLE = r" = [^=\s](.*[^=\s])? = \n?$"


@dataclass(frozen=True, kw_only=True)
class HubCorpus:
    """An entry of the table. Sizes are of the text that is published, roughly; the licence is the card's."""

    about: str
    dataset: str
    config: str | None = None
    split: str = "train"
    validation: str | None = "validation"
    """The dataset's own validation split. None: it has none, and a share is held out."""
    field: str = "text"
    licence: str
    documents: int
    bytes: int
    cap_bytes: int | None = CAP_BYTES
    """What is fetched where nothing else is asked for. None: all of it."""
    begins: str | None = None
    """Where a document is several rows: the pattern of the row with which one begins."""


HUB: dict[str, HubCorpus] = {
    "tinystories": HubCorpus(  # arXiv:2305.07759
        about="short stories in the words of a young child, by GPT-3.5 and GPT-4",
        dataset="roneneldan/TinyStories",
        licence="CDLA-Sharing-1.0",
        documents=2_119_719,
        bytes=1_911_000_000,
    ),
    "wikitext-2": HubCorpus(  # arXiv:1609.07843
        about="good and featured articles of the English Wikipedia",
        dataset="Salesforce/wikitext",
        config="wikitext-2-raw-v1",
        licence="CC BY-SA 3.0, GFDL",
        documents=600,
        bytes=11_000_000,
        cap_bytes=None,
        begins=WIKITEXT_TITLE,
    ),
    "wikipedia-ga": HubCorpus(
        about="the Irish Wikipedia of November 2023",
        dataset="wikimedia/wikipedia",
        config="20231101.ga",
        validation=None,
        licence="CC BY-SA 3.0, GFDL",
        documents=59_000,
        bytes=60_000_000,
        cap_bytes=None,
    ),
    # deepmind/pg19 (arXiv:1911.05507) is a loading script, which datasets runs no more; this is its text as Parquet
    "pg19": HubCorpus(
        about="books of Project Gutenberg from before 1919, whole",
        dataset="emozilla/pg19",
        licence="Apache-2.0",
        documents=28_602,
        bytes=11_450_000_000,
    ),
    "c4": HubCorpus(  # arXiv:1910.10683
        about="the Colossal Clean Crawled Corpus: English web pages of April 2019",
        dataset="allenai/c4",
        config="en",
        licence="ODC-BY",
        documents=364_868_892,
        bytes=807_000_000_000,
    ),
    "fineweb-edu": HubCorpus(  # arXiv:2406.17557
        about="web pages chosen for what they teach, a sample of ten billion tokens",
        dataset="HuggingFaceFW/fineweb-edu",
        config="sample-10BT",
        validation=None,
        licence="ODC-BY",
        documents=9_672_101,
        bytes=47_000_000_000,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What somebody asks for besides a corpus's name; None where nothing is said."""

    config: str | None = None
    split: str | None = None
    field: str | None = None
    revision: str | None = None
    documents: int | None = None
    bytes: int | None = None

    def given(self) -> dict[str, str | int]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which text of which dataset: rows of `split` from the first on, until the cap is reached."""

    dataset: str
    config: str | None
    split: str
    validation: str | None
    """The split to validate on. None: `validation` where the dataset has it, else a share is held out."""
    field: str | None
    """The column with the text. None: `text`, or the only one that holds strings."""
    begins: str | None
    documents: int | None
    bytes: int | None
    fraction: float | None
    """A share to hold out in place of the dataset's own validation split."""
    seed: int
    """Of the choice of what is held out."""
    revision: str | None = None
    """A commit, branch or tag. None: the newest when it is fetched."""

    @property
    def key(self) -> str:
        """One hash for all that decides the text, the revision aside."""
        return sha256_json({name: value for name, value in dataclasses.asdict(self).items() if name != "revision"})

    def cap(self, split: str) -> tuple[int | None, int | None]:
        """(documents, bytes) to take; of a published validation split the share that would have been held out."""
        if split == self.split:
            return self.documents, self.bytes
        documents, size = (
            None if cap is None else max(1, round(cap * VALIDATION_FRACTION)) for cap in (self.documents, self.bytes)
        )
        return documents, size


def parse_bytes(text: str) -> int:
    """A number of bytes as somebody writes it: 20000000 or 20MB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?b)?", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} should be a number of bytes, such as 20MB")
    return round(float(match[1]) * UNITS[match[2] or "b"])


def is_on_hub(name: str) -> bool:
    """Whether a corpus is named that comes from the Hub."""
    return name in HUB or name.startswith(PREFIX)


def request_for(name: str, choice: Choice, fraction: float | None = None, seed: int = 0) -> Request:
    """What `name`, an entry of the table or `hf:OWNER/NAME`, means together with what else was asked for."""
    for what in ("documents", "bytes"):
        if (count := getattr(choice, what)) is not None and count < 1:
            raise ValueError(f"a cap of {count} {what} takes nothing: it should be 1 or more")
    if seed < 0:
        raise ValueError(f"the seed of a split is 0 or more, not {seed}")
    if fraction is not None:
        check_fraction(fraction)
    entry = HUB[name] if name in HUB else of_dataset(name)
    if name in HUB:
        check_fits(name, entry, choice)
    capped = choice.documents is not None or choice.bytes is not None
    return Request(
        dataset=entry.dataset,
        config=choice.config or entry.config,
        split=choice.split or entry.split,
        validation=None if fraction is not None else entry.validation,
        field=choice.field or (entry.field if name in HUB else None),
        begins=entry.begins,
        documents=choice.documents,
        bytes=choice.bytes if capped else entry.cap_bytes,
        fraction=fraction,
        seed=seed,
        revision=choice.revision,
    )


def of_dataset(name: str) -> HubCorpus:
    """Any other dataset, as an entry that leaves to the dataset what the table would have said."""
    dataset = name.removeprefix(PREFIX)
    if not ID.fullmatch(dataset):
        known = nearest(name, HUB)
        raise ValueError(f"{name!r} is no corpus on the Hub: write {PREFIX}OWNER/NAME, or one of the table; {known}")
    return HubCorpus(about=dataset, dataset=dataset, validation=None, licence="", documents=0, bytes=0)


def check_fits(name: str, entry: HubCorpus, choice: Choice) -> None:
    """A name of the table stands for one configuration, split and column."""
    for what in ("config", "split", "field"):
        asked, has = getattr(choice, what), getattr(entry, what)
        if asked is not None and asked != has:
            raise ValueError(f"{name} is {what} {has!r} of {entry.dataset}: for another, name {PREFIX}{entry.dataset}")


def snapshot_name(name: str, config: str | None) -> str:
    """What a snapshot is called: the name in the table, or owner, dataset and configuration."""
    if name in HUB:
        return name
    parts = [name.removeprefix(PREFIX).replace("/", "-"), *([config] if config else [])]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))[:50].rstrip("-._")


def command_words(name: str, request: Request) -> list[str]:
    """What `python -m data.corpora` is told to make or continue the snapshot `name` of a request."""
    entry = HUB.get(name)
    usual = entry or HubCorpus(about="", dataset=request.dataset, licence="", documents=0, bytes=0)
    capped = request.documents is not None or request.bytes != usual.cap_bytes
    options = {
        "config": None if entry else request.config,
        "split": None if request.split == usual.split else request.split,
        "field": None if entry else request.field,
        "revision": request.revision,
        "documents": request.documents,
        "bytes": request.bytes if capped else None,
        "validation-fraction": request.fraction,
        "seed": request.seed or None,
    }
    given = [f"--{option}={value}" for option, value in options.items() if value is not None]
    return ["fetch", name if entry else request.dataset, *given]
