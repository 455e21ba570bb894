"""What is mixed into training so that less is forgotten: texts of a corpus, or other examples (arXiv:1811.11682).

Uses numpy; of ours `data` and here `finetune.{examples,rendering,cutting}`. The validation split is left alone. Texts
are scored whole; they are cut into pieces of one context, so that nothing of a long one is lost.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from data.builtin import BUILT_IN as CORPORA
from data.corpora import open_corpus, snapshot_names
from data.hub_corpora import HUB
from data.workspace import Workspace
from finetune.cutting import Cutter, Pair
from finetune.examples import ExamplesRecipe, open_examples
from finetune.rendering import Renderer


@dataclass(frozen=True)
class Replay:
    """What is replayed, and which share of an epoch it is to be."""

    name: str
    sha256: str
    share: float
    seed: int
    examples: Callable[[], list[dict]]

    @property
    def record(self) -> dict:
        return {"name": self.name, "sha256": self.sha256, "share": self.share, "seed": self.seed}

    def pairs(self, beside: int, renderer: Renderer, cutter: Cutter) -> Iterator[Pair]:
        """So many that they are the share of an epoch that has `beside` other examples; in an order of the seed's.

        Raises:
            ValueError: where there are not as many.
        """
        wanted, taken = round(beside * self.share / (1 - self.share)), 0
        examples = self.examples()
        for i in np.random.default_rng(self.seed).permutation(len(examples)):
            if taken == wanted:
                return
            for pair in pieces(examples[i], renderer, cutter):
                if taken < wanted:
                    taken += 1
                    yield pair
            cutter.check()
        if taken < wanted:
            raise ValueError(
                f"data.replay {self.name} has {taken:,} pieces of at most {cutter.context:,} tokens, and "
                f"data.replay_share {self.share:g} beside {beside:,} examples wants {wanted:,}: choose a share of "
                f"{int(100 * taken / (taken + beside)) / 100:g} at most"
            )


def open_replay(data: ExamplesRecipe, workspace: Workspace) -> Replay | None:
    """What a recipe replays; None: nothing."""
    if not data.replay or not data.replay_share:
        return None
    if data.replay in CORPORA or data.replay in HUB or data.replay in snapshot_names(workspace):
        found = open_corpus(data.replay, workspace)

        def examples() -> list[dict]:
            return [{"text": text, "source": f"{found.name}:{i}"} for i, text in enumerate(found.texts("train"), 1)]
    else:
        plain = dict.fromkeys(("config", "split", "revision", "documents", "replay")) | {"replay_share": 0.0}
        try:
            found = open_examples(replace(data, source=data.replay, **plain), workspace)
        except ValueError as error:
            raise ValueError(f"data.replay: {error}") from error

        def examples() -> list[dict]:
            return found.split("train")

    return Replay(found.name, found.sha256, data.replay_share, data.split_seed, examples)


def pieces(example: dict, renderer: Renderer, cutter: Cutter) -> Iterator[Pair]:
    """A text in pieces of at most one context, each scored but for its first token; a conversation as it is."""
    ((ids, scored),) = renderer.encode([renderer.segments(example)])
    if "messages" in example:
        kept = cutter(example, (ids, scored))
        yield from [] if kept is None else [kept]
        return
    for start in range(0, len(ids) - 1, cutter.context):
        part = ids[start : start + cutter.context]
        learnt = np.ones(len(part), dtype=bool)
        learnt[0] = False
        if len(part) > 1:  # one token alone has nothing before it
            yield part, learnt
