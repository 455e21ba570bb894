"""What takes seconds to find out: what the model makes of a changed token, and what training shares with validation.

May import `hub`, `data` and torch. Asked for at the end of a run and on the command line, never by a page; kept in
findings.json, so that a page can judge by it.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.snapshots import Corpus, open_snapshot
from data.statistics import kept, statistics
from data.tokens import take_rows
from hub.models import open_model
from training.findings import Case

ROWS, LONGEST = 8, 256  # sequences, and tokens of each
ROUNDING = 1e-4  # of the largest score: what another order of summation may change
OFFSETS = 3  # 0: the token just read, 1: the next, 2: the one after it
BETTER = 0.5  # nats that a wrong offset must be better by, and the share of ln V it must be below
LARGEST = 64 << 20  # bytes of a corpus that is counted without being asked for


def probe(model, ids: np.ndarray) -> dict:
    """Whether a changed token changes an earlier score, and which token the scores of a position are about.

    Args:
        ids: (B, T) of the text the model was trained for, T at least 8.

    Returns:
        `leak`; `difference`, the largest of an earlier score, and its `tolerance`; `changed`, the first position that
        was changed; `losses` by offset; `learnt_offset`, 1 unless another is predicted far better.
    """
    tokens = torch.from_numpy(ids).to(next(model.parameters()).device)
    training, middle = model.training, tokens.shape[1] // 2
    other = tokens.clone()
    other[:, middle:] = (other[:, middle:] + 1) % model.config.vocab_size
    model.eval()
    with torch.no_grad():
        scores, changed = (model(input_ids=x, use_cache=False).logits.float() for x in (tokens, other))
    model.train(training)
    difference = (scores[:, :middle] - changed[:, :middle]).abs().max().item()
    tolerance = ROUNDING * max(1.0, scores.abs().max().item())
    losses = [_loss(scores, tokens, offset) for offset in range(OFFSETS)]
    best = int(np.argmin(losses))
    clear = losses[best] < min(losses[1] - BETTER, BETTER * np.log(model.config.vocab_size))
    return {
        "leak": difference > tolerance,
        "difference": difference,
        "tolerance": tolerance,
        "changed": middle,
        "losses": losses,
        "learnt_offset": best if clear else 1,
    }


def _loss(scores: Tensor, tokens: Tensor, offset: int) -> float:
    """Mean cross-entropy of the token `offset` behind the one that was read last."""
    kept = scores[:, : scores.shape[1] - offset].flatten(0, 1)
    return F.cross_entropy(kept, tokens[:, offset:].flatten()).item()


def probe_newest(case: Case, model=None) -> dict | None:
    """`probe` of the run's newest checkpoint; what was found out before of the same one is taken as it is.

    Args:
        model: the one that has just been saved there, where it is at hand.
    """
    checkpoint = case.checkpoint_before(None)
    if checkpoint is None or case.tokens is None:
        return None
    if model is None and case.probe and case.probe["step"] == _step(checkpoint):
        return case.probe
    ids = case.tokens.split("validation")
    length = min(case.train.context, LONGEST)
    rows = take_rows(ids, np.linspace(0, len(ids), ROWS, endpoint=False).astype(np.int64), length)
    return {**probe(model or open_model(checkpoint)[0], rows), "step": _step(checkpoint)}


def shared_text(case: Case, count: bool) -> dict | None:
    """Shares of the validation split that training has too: `exact`, `expected` (by chance), `ngrams`.

    Args:
        count: count where that was not done before, which takes a while; a large corpus only when it is asked for its
            statistics.
    """
    corpus = _corpus(case)
    if corpus is None:
        return None
    found = kept(corpus)
    if found is None:
        size = sum(split["bytes"] for split in corpus.manifest["splits"].values())
        if not count or size > LARGEST:
            return None
        found = statistics(corpus)
    overlap = found["overlap"]
    return {"exact": overlap["exact"], "expected": _by_chance(corpus), "ngrams": overlap["ngrams"]}


def _by_chance(corpus: Corpus) -> float:
    """Share of validation documents that training would have too, had both been drawn from the corpus's grammar."""
    rows = corpus.split("validation")
    if "log_prob" not in rows.column_names:
        return 0.0
    documents = corpus.manifest["splits"]["train"]["documents"]
    return float(-np.expm1(-documents * np.exp(np.array(rows["log_prob"]))).mean())


def _corpus(case: Case) -> Corpus | None:
    recorded = case.info["inputs"].get("corpus") or {}
    path = case.run.path.absolute().parents[1] / "corpora" / str(recorded.get("name"))
    if not (path / "manifest.json").is_file():
        return None
    corpus = open_snapshot(path)
    return corpus if corpus.sha256 == recorded["sha256"] else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
