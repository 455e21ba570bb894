"""A worked example: "Ada's town", "the town's land"; asked for Ada's land, does a model think of the town nobody names?

May import `training` and `data`; of ours `interpret.probe`, `probe_sets`, `record` and `structure`. A small world of
people, towns and lands is drawn once and has to be learnt by heart: `p017 town t03` and `t03 land l5` are facts, and
`p017 town land l5` asks for two steps at once. A part of the people is never asked about in two steps: whoever answers
for them has put two facts together (arXiv:2405.15071). docs/experiments/multi-hop/ has what came of it.

Shapes: R rows, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from data.console import cli
from interpret.probe import Probes, probe
from interpret.probe_sets import Example, ProbeSet
from interpret.record import record
from interpret.structure import structure
from training.architecture import build_config, build_model
from training.evaluate import IGNORED
from training.optimizers import build_optimizer
from training.recipe import TrainRecipe
from training.schedule import rate_at

PEOPLE, TOWNS, LANDS = 800, 40, 8
HELD_OUT = 0.2  # of the people are never asked about in two steps
BEGIN, TOWN, LAND = "^", "town", "land"
MODEL = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "position_embedding": "learned",
    "tie_word_embeddings": False,
}
STEPS, ROWS, WARMUP = 2000, 128, 50
KINDS = (0.4, 0.2, 0.4)  # shares of the rows: a person's town, a town's land, both steps
PLACES = ("person", TOWN, LAND)  # the words of a question of two steps; its answer is due behind the last


@dataclass(frozen=True)
class World:
    """Who lives where: `town_of` (PEOPLE,), `land_of` (TOWNS,), and who is never asked about in two steps (PEOPLE,)."""

    town_of: np.ndarray
    land_of: np.ndarray
    held_out: np.ndarray

    @classmethod
    def draw(cls, seed: int) -> "World":
        random = np.random.default_rng(seed)
        held_out = np.zeros(PEOPLE, dtype=bool)
        held_out[random.permutation(PEOPLE)[: round(HELD_OUT * PEOPLE)]] = True
        return cls(random.permutation(PEOPLE) % TOWNS, random.permutation(TOWNS) % LANDS, held_out)


@dataclass(frozen=True)
class Trained:
    """A model of one world. `losses` holds (step, nats per answer)."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    losses: list[tuple[int, float]]


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [BEGIN, TOWN, LAND]
    words += [f"{kind}{i:03d}" for kind, count in (("p", PEOPLE), ("t", TOWNS), ("l", LANDS)) for i in range(count)]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=BEGIN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BEGIN, eos_token=BEGIN, pad_token=BEGIN)


def person(i: np.ndarray) -> np.ndarray:
    """Token ids of people; behind the three words that are no names."""
    return 3 + i


def town(i: np.ndarray) -> np.ndarray:
    return 3 + PEOPLE + i


def land(i: np.ndarray) -> np.ndarray:
    return 3 + PEOPLE + TOWNS + i


def rows_of(world: World, random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """(ids, labels), (R, 5) each: facts and questions in the shares of KINDS; only their last word is scored."""
    ids, labels = np.zeros((count, 5), dtype=int), np.full((count, 5), IGNORED)
    kind = random.choice(3, count, p=KINDS)
    asked = np.flatnonzero(~world.held_out)
    people, places = random.integers(0, PEOPLE, count), random.integers(0, TOWNS, count)
    people = np.where(kind == 2, random.choice(asked, count), people)
    lives = world.town_of[people]
    ids[:, 1] = np.where(kind == 1, town(places), person(people))
    ids[:, 2] = np.where(kind == 1, 2, 1)  # `land` behind a town, `town` behind a person
    ids[:, 3] = np.select([kind == 0, kind == 1], [town(lives), land(world.land_of[places])], 2)
    ids[:, 4] = np.where(kind == 2, land(world.land_of[lives]), 0)
    last = np.where(kind == 2, 4, 3)
    labels[np.arange(count), last] = ids[np.arange(count), last]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def train(
    world: World, seed: int, steps: int = STEPS, say: Callable[[int, float], object] = lambda *_: None
) -> Trained:
    """A model from nothing that knows the world by heart.

    Args:
        say: is told the step and its loss, in nats per answer, every fiftieth of the way.
    """
    torch.manual_seed(seed)
    spelt, random = tokenizer(), np.random.default_rng(seed)
    model = build_model(build_config(MODEL, len(spelt), 5, {"bos_token_id": 0}))
    recipe = TrainRecipe(
        optimizer="adamw", learning_rate=2e-3, weight_decay=0.1, steps=steps, warmup_steps=WARMUP, decay_fraction=0.5
    )
    optimizer, losses = build_optimizer(model, recipe), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate_at(step, recipe)
        ids, labels = rows_of(world, random, ROWS)
        logits = model(ids[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % max(steps // 50, 1) == 0:
            losses.append((step + 1, loss.item()))
            say(*losses[-1])
    return Trained(model.eval(), spelt, losses)


def questions(people: np.ndarray) -> Tensor:
    """`^ person town land`, (R, 4) ids: two steps at once."""
    fixed = [np.full(len(people), i) for i in (0, 1, 2)]
    return torch.from_numpy(np.stack([fixed[0], person(people), fixed[1], fixed[2]], axis=1))


@torch.no_grad()
def accuracy(model: nn.Module, world: World) -> dict[str, float]:
    """Shares of right answers: one step, and two steps about people who were asked about so and who never were."""
    everyone = np.arange(PEOPLE)
    one = model(questions(everyone)[:, :3]).logits[:, -1].argmax(-1).numpy() == town(world.town_of)
    two = model(questions(everyone)).logits[:, -1].argmax(-1).numpy() == land(world.land_of[world.town_of])
    held = world.held_out
    return {
        "one step": one.mean(),
        "two steps, asked so": two[~held].mean(),
        "two steps, never asked": two[held].mean(),
    }


def towns_unsaid(world: World, place: str) -> ProbeSet:
    """Questions of two steps, each labelled with the town it goes through; the probe reads the token of `place`."""
    examples = []
    for i, lives in enumerate(world.town_of):
        text = f"p{i:03d} {TOWN} {LAND}"
        start = {"person": 0, TOWN: text.index(TOWN), LAND: text.index(LAND)}[place]
        end = {"person": 4, TOWN: start + len(TOWN), LAND: len(text)}[place]
        examples.append(Example(text, start, end, f"t{lives:03d}", f"p{i:03d}"))
    return ProbeSet(place, "which town does the question go through, that it does not name?", tuple(examples))


def look(trained: Trained, world: World, progress: Callable[[list], Iterable] = iter) -> dict[str, Probes]:
    """Probes for the unsaid town in every layer, at each of PLACES."""
    return {
        place: probe(trained.model, trained.tokenizer, towns_unsaid(world, place)) for place in progress(list(PLACES))
    }


def exchanged(model: nn.Module, world: World, seed: int) -> np.ndarray:
    """What the thought is good for: (layers, 3) shares of answers that go over to another person's land.

    The stream behind one layer, at one word, is replaced by that of a question about somebody of another land, who was
    never asked about in two steps either; all else stays.
    """
    random = np.random.default_rng(seed)
    people = np.flatnonzero(world.held_out)
    others = random.permutation(people)
    lands = world.land_of[world.town_of]
    differ = lands[people] != lands[others]
    people, others = people[differ], others[differ]
    ids, layers = questions(people), len(structure(model).layers)
    there = record(model, questions(others), ["resid_post"])
    shares = np.zeros((layers, len(PLACES)))
    for layer in range(layers):
        site = f"blocks.{layer}.resid_post"
        for column in range(len(PLACES)):

            def put(stream: Tensor, place: int = column + 1, source: Tensor = there[site]) -> Tensor:
                changed = stream.clone()
                changed[:, place] = source[:, place]
                return changed

            said = record(model, ids, ["logits"], positions=[-1], edits={site: put})["logits"][:, 0].argmax(-1).numpy()
            shares[layer, column] = (said == land(lands[others])).mean()
    return shares


if __name__ == "__main__":
    from interpret.multi_hop_cli import main  # it imports this module

    cli(main)
