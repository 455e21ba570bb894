"""The data of a run in one call: corpus, tokenizer, packed tokens.

Uses pydantic; of ours the other modules of `data`. What exists is found in an instant; each phase that has to be done
says on stderr what came of it and how long it took.
"""

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from data.corpora import open_corpus
from data.snapshots import Corpus
from data.tokenizer import Tokenizer, open_tokenizer
from data.tokens import Tokens, pack
from data.workspace import Workspace


@dataclass(config=ConfigDict(extra="forbid", use_attribute_docstrings=True), kw_only=True)
class DataRecipe:
    """What a model is trained on, and in which pieces it reads."""

    corpus: str = "tales"
    """A built-in corpus (tales, verdict, shakespeare), a snapshot's name, or a path to a file or folder of text."""
    tokenizer: str = "bpe"
    """char, bpe or unigram, trained on the corpus; or a saved tokenizer (NAME or NAME@vN), a folder, a Hub id."""
    vocab_size: int = 1024
    """Entries of a bpe or unigram tokenizer; the others have the size they have."""
    validation_fraction: float | None = None
    """Share of the text held out; None: a tenth for new text (tales: 2,000 stories), else what the snapshot has."""
    split_seed: int = 0
    """Of the choice of documents held out (tales: of the stories themselves)."""
    text_field: str | None = None
    """Field of .jsonl and .parquet files that holds the text; None: `text`, or the only one that holds strings."""

    @field_validator("corpus", "tokenizer")
    @classmethod
    def _named(cls, value: str, info) -> str:
        if not value.strip():
            example = cls.__dataclass_fields__[info.field_name].default
            raise ValueError(f"data.{info.field_name} is empty: name one, such as {example!r}")
        return value

    @field_validator("vocab_size")
    @classmethod
    def _some(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"data.vocab_size {value} should be a number of entries, such as 1024")
        return value

    @field_validator("validation_fraction")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        if value is not None and not 0 < value < 1:
            raise ValueError(f"data.validation_fraction {value:g} should lie between 0 and 1, such as 0.1")
        return value

    @field_validator("split_seed")
    @classmethod
    def _seed(cls, value: int) -> int:
        if value < 0:
            raise ValueError(f"data.split_seed {value} should be 0 or more")
        return value


def prepare(recipe: DataRecipe, workspace: Workspace) -> tuple[Corpus, Tokenizer, Tokens]:
    """Corpus, tokenizer and tokens of a recipe, each made only where it is not there yet."""
    corpus = open_corpus(recipe.corpus, workspace, recipe.validation_fraction, recipe.split_seed, recipe.text_field)
    tokenizer = open_tokenizer(recipe.tokenizer, corpus, recipe.vocab_size, workspace)
    return corpus, tokenizer, pack(corpus, tokenizer, workspace)
