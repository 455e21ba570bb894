"""A dataset on the Hub, opened for streaming, its mistakes told in one sentence each.

Uses `datasets` and `huggingface_hub`; of ours `data.hub_corpora`, `data.console` and `data.sources`. A dataset is
opened at one commit, so that whatever is published meanwhile, a fetch that goes on reads what it began with.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import datasets
import huggingface_hub
from huggingface_hub import constants, errors

from data.console import nearest, one_line
from data.hub_corpora import HUB, Request
from data.sources import choose_field

LOUD = ("datasets", "huggingface_hub", "fsspec")  # they log beside what they raise; one sentence is enough
SHOWN = 8  # configurations that a sentence names


@dataclass(frozen=True)
class Source:
    """What a request turned out to be: a commit of the dataset, the column of its text, its validation split."""

    revision: str
    licence: str
    field: str
    validation: str | None


@dataclass(frozen=True)
class Streams:
    """The splits of a dataset at one commit, each a stream of its rows with the column of the text alone."""

    source: Source
    splits: dict[str, datasets.IterableDataset]
    files: dict[str, list[str]]
    rows: dict[str, int]
    """As far as the dataset says how many it has."""

    def file_at(self, split: str) -> str:
        """The file that is being read, by its path in the repository; the dataset's own name where that is unclear."""
        files, stream = self.files[split], self.splits[split]
        state = stream.state_dict()["examples_iterable"]
        while "shard_idx" not in state and "examples_iterable" in state:
            state = state["examples_iterable"]
        at = state.get("shard_idx")
        if at is None or len(files) != stream.num_shards or at >= len(files):
            return f"a file of the split {split}"
        return inside(files[at])


def inside(url: str) -> str:
    """`hf://datasets/owner/name@commit/en/a.json.gz` -> `en/a.json.gz`."""
    return url.partition("@")[2].partition("/")[2] or url


def open_streams(request: Request, revision: str | None) -> Streams:
    """The dataset of a request, at `revision` where a fetch began with that.

    Raises ValueError for a dataset, revision, configuration, split or column that is not there, and where the Hub
    cannot be reached.
    """
    with quiet():
        info = ask_hub(request, revision)
        builder = open_builder(request, info.sha)
        streams = open_splits(request, builder)
    if request.split not in streams:
        raise ValueError(f"{request.dataset} has no split {request.split!r}; {nearest(request.split, streams)}")
    validation = request.validation
    if validation is None and request.fraction is None and request.split != "validation" and "validation" in streams:
        validation = "validation"
    if validation is not None and validation not in streams:
        raise ValueError(
            f"{request.dataset} has no split {validation!r} to validate on; {nearest(validation, streams)}"
        )
    field = column(request, streams[request.split])
    entry = next((one for one in HUB.values() if one.dataset == request.dataset), None)
    source = Source(info.sha, entry.licence if entry else licence_of(info), field, validation)
    chosen = [request.split, *([validation] if validation else [])]
    sizes = builder.info.splits or {}
    return Streams(
        source,
        {name: streams[name].select_columns([field]) for name in chosen},
        {name: list(map(str, (builder.config.data_files or {}).get(name, []))) for name in chosen},
        {name: sizes[name].num_examples for name in chosen if name in sizes and sizes[name].num_examples},
    )


def ask_hub(request: Request, revision: str | None) -> huggingface_hub.DatasetInfo:
    """What the Hub knows of the dataset: its commit above all."""
    wanted = revision or request.revision
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{request.dataset} has to be fetched and HF_HUB_OFFLINE is set: unset it where there is a network, "
            "or copy the snapshot's folder from a machine that has it into the workspace's corpora/"
        )
    try:
        return huggingface_hub.HfApi().dataset_info(request.dataset, revision=wanted)
    except errors.GatedRepoError as error:
        where = f"{constants.ENDPOINT}/datasets/{request.dataset}"
        raise ValueError(f"{request.dataset} is gated: accept its terms at {where} and run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{request.dataset} has no revision {wanted!r}: name a commit, a branch or a tag") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"there is no dataset {request.dataset!r} on the Hub; if it is private, run `hf auth login` first"
        ) from error
    except Exception as error:  # whatever the client of the day raises when there is no network
        raise ValueError(
            f"the Hub at {constants.ENDPOINT} cannot be reached ({one_line(error)}): try again when it can; "
            "what was fetched so far is kept"
        ) from error


def open_builder(request: Request, commit: str) -> datasets.DatasetBuilder:
    try:
        return datasets.load_dataset_builder(request.dataset, request.config, revision=commit)
    except RuntimeError as error:  # "Dataset scripts are no longer supported"
        raise ValueError(
            f"{request.dataset} is published as a program, which is not run: "
            f"look for a copy of it as Parquet or JSON ({one_line(error)})"
        ) from error
    except ValueError as error:  # no such configuration, or several and none was named
        known = datasets.get_dataset_config_names(request.dataset, revision=commit)
        if request.config is not None and request.config not in known:
            hint = nearest(request.config, known[:SHOWN] if len(known) > SHOWN else known)
            raise ValueError(f"{request.dataset} has no configuration {request.config!r}; {hint}") from error
        if request.config is None and len(known) > 1:
            some = ", ".join(known[:SHOWN]) + (" …" if len(known) > SHOWN else "")
            raise ValueError(f"{request.dataset} has several configurations, name one of {some}") from error
        raise ValueError(f"{request.dataset} cannot be opened: {one_line(error)}") from error
    except Exception as error:
        raise ValueError(
            f"{request.dataset} cannot be opened ({type(error).__name__}: {one_line(error)}): it should hold "
            "Parquet, JSON, CSV or text files; if the network failed, the same command tries again"
        ) from error


def open_splits(request: Request, builder: datasets.DatasetBuilder) -> dict[str, datasets.IterableDataset]:
    try:
        return dict(builder.as_streaming_dataset())
    except Exception as error:  # it looks into the first file for the columns
        first = next(iter((builder.config.data_files or {}).values()), ["its first file"])
        raise ValueError(told(request, inside(str(first[0])), error)) from error


def column(request: Request, stream: datasets.IterableDataset) -> str:
    """The column with the text. Raises ValueError that names those there are."""
    if stream.features:
        kinds = {name: getattr(one, "dtype", type(one).__name__) for name, one in stream.features.items()}
    else:  # of CSV and the like nobody knows before the first row is read
        try:
            row = next(iter(stream.take(1)), {})
        except Exception as error:
            raise ValueError(told(request, "its first file", error)) from error
        kinds = {name: "string" if isinstance(value, str) else type(value).__name__ for name, value in row.items()}
    strings = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
    name = choose_field(request.field, list(kinds), strings, request.dataset)
    if name not in strings:
        raise ValueError(f"{request.dataset}: the column {name!r} holds {kinds[name]}, not text: name one with --field")
    return name


def told(request: Request, file: str, error: BaseException) -> str:
    """The sentence for a file that cannot be read, by the fault of the file or of the network."""
    return (
        f"{request.dataset}: {file} cannot be read ({type(error).__name__}: {one_line(error)[:200]}): it is damaged or "
        "the connection broke; what came before is kept, and the same command goes on from there"
    )


def licence_of(info: huggingface_hub.DatasetInfo) -> str:
    """The licence of the dataset's card."""
    said = (info.card_data or {}).get("license") or "not stated"
    return said if isinstance(said, str) else ", ".join(map(str, said))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own bars and log lines, which name neither the corpus nor what to do."""
    shown = datasets.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in LOUD}
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
            huggingface_hub.utils.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
