"""The data of a run in one call: corpus, tokenizer, packed tokens.

Uses pydantic; of ours the other modules of `data`. What exists is found in an instant; each phase that has to be done
says on stderr what came of it and how long it took.
"""

from typing import Literal

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from data.corpora import open_corpus
from data.hub_corpora import Choice
from data.snapshots import Corpus
from data.tokenizer import Tokenizer, open_tokenizer
from data.tokenizer_options import SPECIAL_LIMIT, Options, check_pattern
from data.tokens import Tokens, pack
from data.workspace import Workspace


@dataclass(config=ConfigDict(extra="forbid", use_attribute_docstrings=True), kw_only=True)
class DataRecipe:
    """What a model is trained on, and in which pieces it reads."""

    corpus: str = "tales"
    """A built-in corpus, one of the Hub (`c4`, `hf:OWNER/NAME`), a snapshot's name, or a path to files of text."""
    tokenizer: str = "bpe"
    """char, bpe or unigram, trained on the corpus; or a saved tokenizer (NAME or NAME@vN), a folder, a Hub id."""
    vocab_size: int = 1024
    """Entries of a bpe or unigram tokenizer; the others have the size they have."""
    tokenizer_special_pattern: str | None = None
    """Of one trained here: a regular expression; what it finds in the text becomes entries that are never split."""
    tokenizer_special_limit: int = SPECIAL_LIMIT
    """The most entries that the pattern may make, most frequent first."""
    tokenizer_split_digits: bool = False
    """Of one trained here: each digit is a piece by itself."""
    tokenizer_prefix_space: bool = False
    """Of one trained here: a text begins with a space, so that its first word is read as those within it."""
    tokenizer_normalization: Literal["none", "nfc", "nfkc", "lowercase"] = "none"
    """Of one trained here: what is done to a text before it is cut; all but none lose what they change."""
    validation_fraction: float | None = None
    """Share held out; None: the Hub's own validation split, a tenth of new text, or what the snapshot has."""
    split_seed: int = 0
    """Of the choice of documents held out (tales: of the stories themselves)."""
    text_field: str | None = None
    """Field of .jsonl and .parquet, column on the Hub, that holds the text; None: `text`, or the only one."""
    config: str | None = None
    """Configuration of a dataset on the Hub."""
    split: str | None = None
    """Split of a dataset on the Hub to train on; None: `train`."""
    revision: str | None = None
    """Commit, branch or tag of a dataset on the Hub; None: the snapshot there is, else the newest."""
    documents: int | None = None
    """Take so many documents from the Hub at most."""
    bytes: int | None = None
    """Take so much text from the Hub at most; None: what its table says (`python -m data.corpora list`)."""

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

    @field_validator("documents", "bytes")
    @classmethod
    def _cap(cls, value: int | None, info) -> int | None:
        if value is not None and value < 1:
            raise ValueError(f"data.{info.field_name} {value} takes nothing: it should be 1 or more")
        return value

    @field_validator("tokenizer_special_pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_pattern(value)
            except ValueError as error:
                raise ValueError(f"data.tokenizer_special_pattern: {error}") from error
        return value

    @field_validator("tokenizer_special_limit")
    @classmethod
    def _entries(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"data.tokenizer_special_limit {value} should be a number of entries, such as 32")
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

    @property
    def tokenizer_options(self) -> Options:
        """How the tokenizer is trained where the recipe asks for one to be."""
        return Options(
            special_pattern=self.tokenizer_special_pattern,
            special_limit=self.tokenizer_special_limit,
            split_digits=self.tokenizer_split_digits,
            prefix_space=self.tokenizer_prefix_space,
            normalization=self.tokenizer_normalization,
        )


def prepare(recipe: DataRecipe, workspace: Workspace) -> tuple[Corpus, Tokenizer, Tokens]:
    """Corpus, tokenizer and tokens of a recipe, each made only where it is not there yet."""
    corpus, tokenizer = prepare_tokenizer(recipe, workspace)
    return corpus, tokenizer, pack(corpus, tokenizer, workspace)


def prepare_tokenizer(recipe: DataRecipe, workspace: Workspace) -> tuple[Corpus, Tokenizer]:
    """The first two of them."""
    choice = Choice(
        config=recipe.config,
        split=recipe.split,
        revision=recipe.revision,
        documents=recipe.documents,
        bytes=recipe.bytes,
    )
    corpus = open_corpus(
        recipe.corpus, workspace, recipe.validation_fraction, recipe.split_seed, recipe.text_field, choice
    )
    return corpus, open_tokenizer(recipe.tokenizer, corpus, recipe.vocab_size, workspace, recipe.tokenizer_options)
