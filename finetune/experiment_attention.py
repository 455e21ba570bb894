"""Where a fine-tuning moved the attention: each head's divergence from the base's, on old prompts and on the new task.

Of `interpret`: the comparison of two models.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from finetune.rendering import render
from finetune.suites import SUITES, of_level
from interpret.compare import Opened, compare

PROMPTS = 6  # of each kind
MAX_TOKENS = 128


def attention_moved(base: Opened, tuned: Opened, level: str, examples: Sequence[dict]) -> dict:
    """Mean Jensen-Shannon divergence of each head, base against fine-tuned, (layers, heads) each, from 0 to 1.

    Returns `old` on the prompts of the suites and `new` on the examples, `layers` their numbers, or `missing`, a
    sentence, where the heads cannot be compared.
    """
    old = [text for suite in SUITES for text in prompts(suite, level)][: PROMPTS * len(SUITES)]
    new = [render(example, base[1]).text for example in examples]
    try:
        kinds = {"old": heads_of(base, tuned, old), "new": heads_of(base, tuned, new)}
    except ValueError as error:
        return {"missing": str(error)}
    layers = next(iter(kinds.values()))[0]
    return {"layers": layers} | {name: np.round(divergence, 5).tolist() for name, (_, divergence) in kinds.items()}


def prompts(suite: str, level: str) -> list[str]:
    """Some of a suite's questions as plain text, or its texts."""
    return [getattr(one, "prompt", one) for one in of_level(level, suite)[:PROMPTS]]


def heads_of(base: Opened, tuned: Opened, texts: Iterable[str]) -> tuple[list[int], np.ndarray]:
    """(numbers of the layers, mean over the texts (L, H)). Raises ValueError where heads cannot be paired."""
    found = [compare(base, tuned, text, MAX_TOKENS) for text in texts]
    if found[0].heads is None:
        raise ValueError(found[0].missing["heads"])
    return found[0].layers, np.mean([one.heads for one in found], axis=0)
