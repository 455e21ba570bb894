"""A look before training: examples as the model reads them, their lengths, the steps they make, and memory.

May import `training`, `hub` and `data`. Opens the base's tokenizer and configuration, never its weights, and freezes
nothing but what comes from the Hub, which is read over the network once. Quick enough to follow a form being filled in.
"""

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from transformers import PreTrainedConfig

from data.console import cli
from data.workspace import Workspace
from finetune.base import control_tokens, learns_chat_tokens
from finetune.encoding import Encoded, prepare
from finetune.looked import Looked, look
from finetune.memory import Estimate, changed, check_fits, estimate, largest_batch, remedies
from finetune.packing import pack
from finetune.recipe import DEFAULT_EPOCHS, FinetuneRecipe, context_for
from finetune.rendering import answer_end, end_of_text, render
from finetune.rows import Rows, rows_of
from hub.models import open_config, open_tokenizer, resolve

QUANTILES = {"shortest": 0.0, "median": 0.5, "9 in 10": 0.9, "99 in 100": 0.99, "longest": 1.0}
MOSTLY = 0.5  # share of a base that quantising should reach; a mixture's experts are no linear maps, and stay


@dataclasses.dataclass(frozen=True)
class Shown:
    """One example in tokens: `scored[i]` says that piece i is part of an answer, and learnt."""

    source: str
    pieces: list[str]
    scored: list[bool]
    beyond: int
    """Tokens behind the context, which `pieces` still holds."""


@dataclasses.dataclass(frozen=True)
class Preview:
    """Plain values. Where not every example was looked at (`looked_at`), counts are reckoned from those that were."""

    shown: list[Shown]
    train_examples: int
    """Read from the source, those that are too long among them."""
    validation_examples: int
    replayed: int
    looked_at: int
    lengths: list[int]
    """Tokens of each example that was looked at, before anything is cut."""
    spread: dict[str, int]
    """Quantiles of the lengths, by their names in words."""
    longest: str
    """Where the longest was read."""
    context: int
    longest_row: int
    """Tokens of the longest row that is trained on: what memory is reckoned for."""
    cut: int
    dropped: int
    refused: int
    """Too long, where that is a mistake: training will not begin."""
    scored_share: float
    rows_per_epoch: int
    steps_per_epoch: float
    steps: int
    tokens: int
    """Of the whole run, padding left out."""
    padding: float
    """Share of what is computed that is padding, as the recipe packs or not."""
    packing_saves: float
    """Share of what is computed without packing that packing does away with."""
    end: str
    """The token that ends an answer, or a text."""
    end_id: int
    estimate: Estimate
    largest_batch: int
    """The largest micro-batch that fits into what is free."""
    notes: list[str]
    """What a person should know before training, a sentence each."""


def preview(recipe: FinetuneRecipe, workspace: Workspace, count: int = 3) -> Preview:
    """What training by a checked recipe will read, and need.

    Args:
        count: how many examples are shown.

    Raises ValueError for a mistake in the examples, named by file and line, and for a base that cannot be had so.
    """
    tokenizer, config = open_base(recipe.model.base, workspace)
    recipe = changed(recipe, ("train", "context", context_for(recipe, config)))
    looked = look(recipe.data, tokenizer, workspace)
    train, rows = recipe.train, rows_of(looked.pairs, recipe)
    longest = int(rows.lengths.max()) if looked.share == 1 else train.context
    whole = changed(recipe, ("train", "context", longest))
    cost = with_rows(estimate(whole, config), recipe, tokenizer, config, workspace)
    kept = round(rows.examples / looked.share)
    replayed = round(kept * recipe.data.replay_share / (1 - recipe.data.replay_share))
    per_epoch = round((kept + replayed) * rows.per_example) / train.batch_size
    steps = train.steps or max(1, round((train.epochs or DEFAULT_EPOCHS) * per_epoch))
    lengths = [len(ids) for ids, _ in looked.pairs]
    end = end_of(looked.examples, tokenizer)
    return Preview(
        shown=[shown(example, tokenizer, train.context) for example in looked.examples[:count]],
        train_examples=looked.train,
        validation_examples=looked.validation,
        replayed=replayed,
        looked_at=len(lengths),
        lengths=lengths,
        spread={name: int(np.quantile(lengths, q, method="nearest")) for name, q in QUANTILES.items()},
        longest=looked.examples[int(np.argmax(lengths))].get("source", ""),
        context=train.context,
        longest_row=whole.train.context,
        cut=round(rows.cut / looked.share),
        dropped=round(rows.dropped / looked.share),
        refused=round(rows.refused / looked.share),
        scored_share=rows.scored / rows.tokens,
        rows_per_epoch=round(per_epoch * train.batch_size),
        steps_per_epoch=per_epoch,
        steps=steps,
        tokens=round(steps * train.batch_size * rows.lengths.mean()),
        padding=rows.padding,
        packing_saves=rows.packing_saves,
        end=tokenizer.convert_ids_to_tokens(end),
        end_id=end,
        estimate=cost,
        largest_batch=largest_batch(whole, config, cost.memory_free),
        notes=list(notes(whole, config, looked, rows, cost)),
    )


def with_rows(
    cost: Estimate, recipe: FinetuneRecipe, tokenizer, config: PreTrainedConfig, workspace: Workspace
) -> Estimate:
    """The estimate with the rows of the embedding that are learnt besides; of a head too that is not the same."""
    if not learns_chat_tokens(recipe.model, resolve(recipe.model.base, workspace)):
        return cost
    tables = 1 if config.tie_word_embeddings else 2
    learnt = tables * len(control_tokens(tokenizer)) * config.hidden_size
    return dataclasses.replace(cost, parameters=cost.parameters + learnt, trainable=cost.trainable + learnt)


def check_before(recipe: FinetuneRecipe, workspace: Workspace, processes: int = 1) -> Estimate:
    """The estimate, before a weight is fetched; the examples are made and encoded as training needs them.

    Raises ValueError where the base cannot be quantised or adapted so, or this machine's memory is too small.
    """
    tokenizer, config = open_base(recipe.model.base, workspace)
    recipe = changed(recipe, ("train", "context", context_for(recipe, config)))
    encoded = prepare(recipe.data, tokenizer, recipe.train.context, workspace).splits["train"]
    whole = changed(recipe, ("train", "context", longest_row(encoded, recipe)))
    return check_fits(changed(whole, ("train", "batch_size", recipe.train.batch_size // processes)), config)


def open_base(base: str, workspace: Workspace) -> tuple[object, PreTrainedConfig]:
    """A base's tokenizer and configuration; no weight is read."""
    place = resolve(base, workspace)
    stamp = place.stat().st_mtime_ns if isinstance(place, Path) else 0
    return _open_base(place, stamp, workspace.root)


@lru_cache(maxsize=4)
def _open_base(place: Path | str, _stamp: int, root: Path) -> tuple[object, PreTrainedConfig]:
    return open_tokenizer(place, root), open_config(place, root)


def shown(example: dict, tokenizer, context: int) -> Shown:
    rendered = render(example, tokenizer)
    beyond = max(0, len(rendered.ids) - context)
    return Shown(example.get("source", ""), rendered.pieces, rendered.scored.tolist(), beyond)


def end_of(examples: list[dict], tokenizer) -> int:
    """The id of the token that ends an answer, or a text where there are no answers."""
    of_chat = any("messages" in example for example in examples)
    return answer_end(tokenizer) if of_chat else end_of_text(tokenizer)


def longest_row(encoded: Encoded, recipe: FinetuneRecipe) -> int:
    lengths = np.diff(encoded.starts)
    if recipe.data.packing:
        return max(int(lengths[numbers].sum()) for numbers in pack(lengths, recipe.train.context))
    return int(lengths.max())


def notes(
    recipe: FinetuneRecipe, config: PreTrainedConfig, looked: Looked, rows: Rows, cost: Estimate
) -> Iterator[str]:
    """What a person should know before training.

    Args:
        recipe: its context is the longest row's.
    """
    if looked.share < 1:
        yield f"{len(looked.pairs):,} of {looked.train:,} training examples were looked at: counts are reckoned"
    if rows.refused:
        count = f"{rows.refused:,} example{'s are' if rows.refused > 1 else ' is'}"
        yield (
            f"training will refuse to begin: {count} longer than train.context; raise it, or choose data.too_long cut "
            "or drop"
        )
    if not rows.scored:
        yield "not a single token is scored: there is nothing to learn"
    if recipe.model.quantization != "none" and cost.quantised_share < MOSTLY:
        yield (
            f"only {cost.quantised_share:.0%} of the base besides its embeddings can be kept in "
            f"{recipe.model.quantization}; the rest, such as a mixture's experts, stays as it is"
        )
    if not cost.is_whole:
        yield f"activations of a {config.model_type} cannot be reckoned: more memory is needed than is said here"
    if cost.warning:
        yield f"{cost.warning}: {remedies(recipe, config, cost)}"


if __name__ == "__main__":
    from finetune.preview_cli import main  # it stands on this module

    cli(main)
