"""The corpora that come with the lab: one table, BUILT_IN, an entry each.

Uses `data.tales`, `data.markov`, `data.modular`, `data.repeats`, `data.primer`, `data.snapshots` (how to split) and
urllib. An entry says what its snapshot is made from, by hash, before any of the work is done, so that one that exists
is found without generating or fetching anything.
"""

import http.client
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data import primer
from data.markov import Chain
from data.modular import Recurrence
from data.repeats import Repeats
from data.snapshots import SPLITS, VALIDATION_FRACTION, TextHash, split_documents
from data.tales import tales
from data.workspace import sha256_bytes

# 40,000 tales are some four million tokens of the default vocabulary: a first run does not see one twice. As many
# documents are written of every other process.
TALES = 42_000
TALES_HELD_OUT = 2_000
TALES_PROBE = 300  # texts whose hash stands for the process: enough to touch every plot, told in an instant
DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Ingredients:
    """What a snapshot is made from. `sources` and `split` say which one it is, before any of the work is done."""

    sources: list[dict]
    split: dict
    make: Callable[[], tuple[dict[str, list[str]], dict[str, list[float]] | None]]
    """-> texts by split, and their log-probabilities where known"""
    field: str | None = None


@dataclass(frozen=True)
class BuiltIn:
    about: str
    licence: str
    prepare: Callable[[float | None, int], Ingredients]
    """(validation fraction or None, split seed) -> what to make the snapshot from"""


def generated(source: str, write: Callable[[int, int], Iterable[tuple[str, float]]]) -> Callable:
    """A corpus that a process writes, each split by a seed of its own.

    Args:
        source: the file that holds the process.
        write: (documents, seed) -> texts, each with the logarithm of its probability.
    """

    def prepare(fraction: float | None, seed: int) -> Ingredients:
        held_out = TALES_HELD_OUT if fraction is None else round(TALES * fraction)
        if not 0 < held_out < TALES:
            raise ValueError(f"validation_fraction {fraction} is a share of the text: between 0 and 1")
        counts = {"train": TALES - held_out, "validation": held_out}
        seeds = {"train": 2 * seed, "validation": 2 * seed + 1}
        probe = TextHash()
        for text, log_prob in write(TALES_PROBE, 0):
            probe.update(f"{log_prob:.6f} {text}")

        def make():
            texts, log_probs = {}, {}
            for name in SPLITS:
                # drawn independently: a text may come twice, in both splits too, as often as the process says
                told = tqdm(
                    write(counts[name], seeds[name]), f"writing {name}", counts[name], leave=False, disable=None
                )
                texts[name], log_probs[name] = map(list, zip(*told, strict=True))
            return texts, log_probs

        split = {"kind": "generated", "seed": seeds, "fraction": held_out / TALES}
        return Ingredients([{"name": source, "bytes": 0, "sha256": probe.hexdigest()}], split, make)

    return prepare


def tales_and_log_probs(count: int, seed: int) -> Iterator[tuple[str, float]]:
    return ((tale.text, tale.log_prob) for tale in tales(count, seed))


def markov(order: int) -> BuiltIn:
    about = f"letters, each of which depends on the last {order}" if order > 1 else "letters, each depends on the last"
    return BuiltIn(f"{about}; entropy known", "Apache-2.0", generated("data/markov.py", Chain(order).documents))


def published(url: str, sha256: str, filename: str) -> Callable[[float | None, int], Ingredients]:
    """A text that anyone can fetch and that does not change: known by its hash before it is here."""

    def prepare(fraction: float | None, seed: int) -> Ingredients:
        fraction = VALIDATION_FRACTION if fraction is None else fraction
        split = {"kind": "contiguous-tail", "seed": None, "fraction": fraction, "tails": 1}
        source = {"name": filename, "url": url, "sha256": sha256}

        def make():
            return split_documents([fetch(url, sha256, filename)], fraction, seed)[0], None

        return Ingredients([source], split, make)

    return prepare


def fetch(url: str, sha256: str, filename: str) -> str:
    """The text, from `$LLM_LAB_CORPORA` where that has it, else from its URL; refused where it is another text."""
    folder = os.environ.get("LLM_LAB_CORPORA")
    local = Path(folder).expanduser() / filename if folder else None
    if local is not None and local.is_file():
        data, origin = local.read_bytes(), str(local)
    elif os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        raise ValueError(f"{filename} has to be fetched and HF_HUB_OFFLINE is set: {by_hand(url, filename)}")
    else:
        try:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_SECONDS) as reply:
                data, origin = reply.read(), url
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{url} cannot be reached ({error}): {by_hand(url, filename)}") from error
    if sha256_bytes(data) != sha256:
        raise ValueError(
            f"{origin} is not the published {filename}: its SHA-256 begins {sha256_bytes(data)[:12]}, not {sha256[:12]}"
        )
    return data.decode("utf-8")


def by_hand(url: str, filename: str) -> str:
    return f"put {filename} (from {url}) into a folder and name that folder in $LLM_LAB_CORPORA"


BUILT_IN: dict[str, BuiltIn] = {
    "tales": BuiltIn(
        "children's stories by a grammar that knows their entropy",
        "Apache-2.0",
        generated("data/tales.py", tales_and_log_probs),
    ),
    **{f"markov-{order}": markov(order) for order in (1, 2, 3)},
    "modular": BuiltIn(
        "numbers by a rule modulo a prime that each document has for itself; entropy known",
        "Apache-2.0",
        generated("data/modular.py", Recurrence().documents),
    ),
    "repeats": BuiltIn(
        "letters that cannot be guessed, and then the same once more; entropy known",
        "Apache-2.0",
        generated("data/repeats.py", Repeats().documents),
    ),
    "primer": BuiltIn(
        "sums, comparisons, facts, Python and tales, each to be learnt in minutes; entropy known",
        "Apache-2.0",
        generated("data/primer.py", primer.documents),
    ),
    "verdict": BuiltIn(
        "Edith Wharton's short story The Verdict, 20 kB",
        "public domain",
        published(
            "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
            "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
            "the_verdict.txt",
        ),
    ),
    "shakespeare": BuiltIn(
        "forty thousand lines of Shakespeare's plays, 1.1 MB",
        "public domain",
        published(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            "tiny_shakespeare.txt",
        ),
    ),
}
