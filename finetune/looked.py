"""Examples of a source, looked at before training: read and split as training would, encoded, nothing written.

Uses `datasets` late; of ours `data` and here `finetune.{examples,rendering,sources}`. What comes from the Hub is
frozen, as it is read over the network once; what is a file or built in is read again only where it changed.
"""

import dataclasses
from functools import lru_cache
from pathlib import Path

from data.snapshots import SPLITS
from data.workspace import Workspace
from finetune.cutting import Pair
from finetune.encoding import CHUNK
from finetune.examples import ExamplesRecipe, open_examples, read_all, split_examples
from finetune.rendering import renderer_of
from finetune.sources import BUILT_IN, find_source

LOOKED_AT = 2_000  # training examples that are encoded, spread evenly: enough for a distribution, in a second
# What decides which examples there are, and their tokens; the rest of the part says what becomes of them.
FIELDS = ("source", "config", "split", "revision", "documents", "validation_fraction", "split_seed", "system")


@dataclasses.dataclass(frozen=True)
class Looked:
    """Training examples that were looked at, whole, and how many there are.

    Args:
        train: examples of the split; `validation` likewise.
    """

    examples: list[dict]
    pairs: list[Pair]
    train: int
    validation: int

    @property
    def share(self) -> float:
        """Of the training examples, those that were looked at."""
        return len(self.pairs) / self.train


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is looked at; the same where source and reading are the same, and no file changed since."""

    fields: tuple
    stamp: tuple
    recipe: ExamplesRecipe = dataclasses.field(compare=False)
    workspace: Workspace = dataclasses.field(compare=False)


def look(data: ExamplesRecipe, tokenizer, workspace: Workspace) -> Looked:
    """The examples of a recipe in this tokenizer's ids; remembered until the source changes.

    Raises ValueError for a mistake in the source, named by file and line.
    """
    recipe = ExamplesRecipe(**{name: getattr(data, name) for name in FIELDS})
    asked = Asked((workspace.root, *dataclasses.astuple(recipe)), stamp(recipe.source), recipe, workspace)
    return _look(asked, tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=4)
def _look(asked: Asked, tokenizer, _template: str) -> Looked:
    parts, renderer = _read(asked), renderer_of(tokenizer)
    train = parts["train"]
    count = min(LOOKED_AT, len(train))
    chosen = [train[i * len(train) // count] for i in range(count)]
    pairs: list[Pair] = []
    for start in range(0, count, CHUNK):
        pairs += renderer.encode([renderer.segments(example) for example in chosen[start : start + CHUNK]])
    return Looked(chosen, pairs, len(train), len(parts["validation"]))


@lru_cache(maxsize=2)
def _read(asked: Asked) -> dict[str, list[dict]]:
    """Both splits, as training will have them."""
    recipe, workspace = asked.recipe, asked.workspace
    if not is_frozen(recipe.source, workspace):
        source = find_source(recipe.source, recipe.choice)
        if not source.hub:
            return split_examples(list(read_all(source, recipe)), recipe)
    examples = open_examples(recipe, workspace)
    return {name: examples.split(name) for name in SPLITS}


def is_frozen(source: str, workspace: Workspace) -> bool:
    """Whether a source is named by its snapshot, as it is in the recipe of a run."""
    if source in BUILT_IN or Path(source).exists() or Path(source).name != source:
        return False
    return (workspace.root / "examples" / source / "manifest.json").is_file()


def stamp(source: str) -> tuple:
    """Another value whenever one of a source's files has changed."""
    path = Path(source).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((str(file), (facts := file.stat()).st_mtime_ns, facts.st_size) for file in files if file.is_file())
