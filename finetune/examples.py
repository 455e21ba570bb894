"""The examples that a model is fine-tuned on: read, checked, split, and frozen as a snapshot.

Uses pydantic and tqdm; of ours `data`, `training.recipe` and here `finetune.{sources,formats}`. A snapshot is written
once and never changed: a run refers to it by name and content hash. The same source, read in the same way, gives the
one that is there; a file that changed gives another one, `<name>-<6 hex>`, beside it.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as recipe_part
from tqdm import tqdm

from data.fetch import is_revision
from data.hub_corpora import Choice
from data.snapshots import SPLITS, Corpus, check_fraction, open_snapshot, write_snapshot
from data.workspace import Workspace, one_maker, sha256_json
from finetune.formats import format_of, read_example, where
from finetune.sources import BUILT_IN, Source, find_source, first
from training.recipe import STRICT

__all__ = ["BUILT_IN", "Examples", "ExamplesRecipe", "open_examples"]

READING = 1  # raised when rows are read otherwise, so that examples of the old way are not taken for the new


@recipe_part(config=STRICT, kw_only=True)
class ExamplesRecipe:
    """What a model is fine-tuned on."""

    source: str = "stories"
    """A built-in set, a JSON-lines file or a folder of them, a dataset of the Hub (OWNER/NAME), or `alpaca`."""
    config: str | None = None
    """Configuration of a dataset on the Hub."""
    split: str | None = None
    """Split of a dataset on the Hub to take examples from; None: `train`."""
    revision: str | None = None
    """Commit, branch or tag of a dataset on the Hub; None: the examples there are, else the newest."""
    documents: int | None = Field(default=None, ge=1)
    """Take so many examples at most, the first ones; None: all there are, 2,000 of a built-in set."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the examples that is held out."""
    split_seed: int = Field(default=0, ge=0)
    """Of the choice of examples held out, and of those replayed."""
    system: str | None = None
    """A system message, put before every conversation that has none."""
    too_long: Literal["refuse", "cut", "drop"] = "refuse"
    """What becomes of an example of more than train.context tokens: an error, its beginning, or nothing."""
    packing: bool = False
    """Put several examples side by side in one row of train.context tokens; none sees another."""
    replay: str | None = None
    """What is mixed in so that less is forgotten: a corpus of texts by name, or another source of examples."""
    replay_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of an epoch's examples that comes from there."""

    def __post_init__(self):
        if not self.source.strip():
            raise ValueError("data.source is empty: name a file or a dataset, such as tatsu-lab/alpaca")
        if self.replay_share and not self.replay:
            raise ValueError(
                f"data.replay_share is {self.replay_share:g} and data.replay names nothing: give it, such as `primer`"
            )

    @property
    def choice(self) -> Choice:
        """What is asked of a dataset besides its name."""
        return Choice(config=self.config, split=self.split, revision=self.revision, documents=self.documents)

    @property
    def how(self) -> dict:
        """How examples are made from rows, as a snapshot's manifest has it."""
        split = {"kind": "by-example", "seed": self.split_seed, "fraction": self.validation_fraction, "tails": 0}
        return split | {"documents": self.documents, "system": self.system}


@dataclass(frozen=True)
class Examples:
    """Examples that were frozen. Each is a dict (`finetune.formats`) that knows where it came from as its `source`."""

    name: str
    path: Path
    manifest: dict

    @property
    def sha256(self) -> str:
        return self.manifest["sha256"]

    def split(self, name: str) -> list[dict]:
        """All examples of `train` or `validation`, in order."""
        assert name in SPLITS, f"no split {name!r}"
        return [json.loads(text) for text in Corpus(self.name, self.path, self.manifest).texts(name)]


def open_examples(recipe: ExamplesRecipe, workspace: Workspace) -> Examples:
    """The examples of a recipe: those that were frozen, where the source and how it is read are the same."""
    name = recipe.source
    if name not in BUILT_IN and name in snapshot_names(workspace):
        return open_as_made(opened(workspace.root / "examples" / name), recipe)
    return find_or_make(find_source(name, recipe.choice), recipe, workspace)


def snapshot_names(workspace: Workspace) -> list[str]:
    """Those in the workspace; looking writes nothing, not even an empty folder."""
    return sorted(path.parent.name for path in (workspace.root / "examples").glob("[!.]*/manifest.json"))


def opened(path: Path) -> Examples:
    corpus = open_snapshot(path)
    return Examples(corpus.name, path, corpus.manifest)


def open_as_made(examples: Examples, recipe: ExamplesRecipe) -> Examples:
    """A snapshot asked for by its name; what is asked of it must be what it is."""
    made = examples.manifest["split"]
    fields = {"fraction": "validation_fraction", "seed": "split_seed", "documents": "documents", "system": "system"}
    for key, field in fields.items():
        if made[key] != recipe.how[key]:
            raise ValueError(
                f"the examples {examples.name} were made with data.{field} {made[key]!r}, not {recipe.how[key]!r}: "
                "give that, or name the original source to read it again"
            )
    if Path(recipe.source).exists():  # whoever typed the name may have meant what lies here
        say(f"taking {examples.name} as they were frozen (write ./{recipe.source} for the folder that lies here)")
    return examples


@one_maker(lambda source, **_: source.name)
def find_or_make(source: Source, recipe: ExamplesRecipe, workspace: Workspace) -> Examples:
    """The snapshot made from this source in this way, made now if it is not there; none is ever overwritten."""
    how = recipe.how
    key = sha256_json([READING, [file["sha256"] for file in source.files], how])
    room = workspace.room("examples")
    existing = [opened(path.parent) for path in sorted(room.glob(f"{source.name}*/manifest.json"))]
    for examples in existing:
        same = examples.manifest["made_from"] == key
        if same and (not source.hub or is_revision(recipe.revision, examples.manifest["hub"])):
            return examples
    started = time.perf_counter()
    examples = list(read_all(source, recipe))
    parts = split_examples(examples, recipe)
    path = room / source.name
    if path.exists():
        path = room / f"{source.name}-{sha256_json([key, source.hub.get('revision')])[:6]}"
        say(f"{source.name} was read from other rows or in another way, and is kept: making {path.name}")
    licence = source.hub.pop("licence", source.licence)
    texts = {name: [json.dumps(one, ensure_ascii=False) for one in part] for name, part in parts.items()}
    corpus = write_snapshot(path, texts, how, source.files, key, licence, hub=source.hub or None)
    counts = " + ".join(f"{len(parts[name]):,}" for name in SPLITS)
    say(f"{path.name}: {counts}, read in {time.perf_counter() - started:.1f} s")
    return Examples(corpus.name, path, corpus.manifest)


def say(what: str) -> None:
    print(f"examples   {what}", file=sys.stderr)


def read_all(source: Source, recipe: ExamplesRecipe) -> Iterator[dict]:
    """Every example, checked, with where it came from. A mistake is one sentence that names file and line."""
    form, since = None, None
    rows = first(source.rows(), recipe.documents)
    for place, row in tqdm(rows, f"reading {source.name}", recipe.documents, unit=" rows", leave=False, disable=None):
        at = where({"source": place})
        try:
            name = format_of(row)
            if form not in (None, name):
                raise ValueError(
                    f"it is of the format {name!r}, and {since} of {form!r}: one source has one format, so make them "
                    "alike, or put them into files of their own"
                )
            form, since = name, since or at
            example = read_example(row, name, recipe.system) | {"source": place}
            json.dumps(example, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{at}: half a surrogate pair, which is not Unicode text") from error
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from error
        yield example


def split_examples(examples: list[dict], recipe: ExamplesRecipe) -> dict[str, list[dict]]:
    """The examples by split, each in the order in which they were read."""
    fraction = check_fraction(recipe.validation_fraction)
    if not examples:
        raise ValueError(f"{recipe.source} holds no examples at all")
    held_out = round(len(examples) * fraction)
    if not 0 < held_out < len(examples):
        raise ValueError(
            f"{recipe.source} holds {len(examples):,} example{'s' * (len(examples) > 1)}, and data.validation_fraction "
            f"{fraction:g} leaves none to {'train' if held_out else 'validate'} on: give more examples or another share"
        )
    chosen = set(np.random.default_rng(recipe.split_seed).permutation(len(examples))[:held_out].tolist())
    parts: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for i, example in enumerate(examples):
        parts["validation" if i in chosen else "train"].append(example)
    return parts
