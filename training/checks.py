"""Checks before a run: small experiments on copies of its model, each of which finds one kind of mistake.

May import `hub` and `data`. A check is a function of a `Trial` that returns a `Verdict`; a new one is one function and
one line in `CHECKS`. Nothing of the run changes by them (`training.trial`).

Shapes: R rows, T positions, V vocabulary.
"""

import dataclasses
import math
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from data.snapshots import SPLITS
from training import keeper, setup, state
from training.diagnostics import evaluating
from training.estimate import Estimate
from training.trial import STEPS, Trainer, Trial, undisturbed

GREEN, YELLOW, RED = "green", "yellow", "red"
MEMORY = "fits the memory"
CLOSE = 0.9  # of the free memory: little is left for anything else
NEAR, FAR = 0.1, 0.25  # of ln V: how far a fresh model's loss may be from it, and where something is broken
ROUNDING = 1e-4  # of the largest logit: what the order of a sum can change
LOSS_ROUNDING = 0.02  # of a loss, which bf16 may take
CHARACTERS = 20_000  # of each split that are encoded and decoded
FEW_LOST = 1e-3  # of the characters: a tokenizer may not know a rare one
LARGE = 1_000_000_000  # bytes of weights that can be saved and loaded in seconds


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check saw and what it should have seen, in words; `advice` is what to do where that is not green."""

    status: str
    seen: str
    expected: str
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Check:
    """A check that was done. `status` is green, yellow or red."""

    name: str
    status: str
    seen: str
    expected: str
    advice: str
    seconds: float


def fits_memory(trial: Trial) -> Verdict:
    """The estimate is below what is free."""
    return memory_verdict(trial.cost)


def memory_verdict(cost: Estimate) -> Verdict:
    """Of an estimate alone, without a model."""
    needed, free = cost.memory_total, cost.memory_free
    seen, expected = f"about {needed / 1e9:.2f} GB needed", f"at most {free / 1e9:.2f} GB, free on {cost.device}"
    if needed > free:
        return Verdict(RED, seen, expected, cost.warning)
    if needed > CLOSE * free:
        return Verdict(YELLOW, seen, expected, "end what else needs memory, or lower train.batch_size")
    return Verdict(GREEN, seen, expected)


def round_trip(trial: Trial) -> Verdict:
    """The packed ids, decoded, are the corpus's text."""
    tokenizer, tokens, corpus = trial.job.tokenizer, trial.job.evaluator.tokens, trial.job.evaluator.corpus
    lost = folded = total = 0
    for split in SPLITS:
        begins = np.append(tokens.starts(split), len(tokens.split(split)))
        for i, text in enumerate(corpus.texts(split)):
            ids = tokens.split(split)[begins[i] : begins[i + 1] - 1][:CHARACTERS].tolist()  # without the end
            back = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if len(ids) == CHARACTERS:  # of a long text the beginning, which may end within a character
                back = back.rstrip("\ufffd")
                text = text[: len(back)]
            total += len(text)
            if back != text:
                same = _folded(back) == _folded(text)
                folded += same
                lost += 0 if same else max(sum((Counter(text) - Counter(back)).values()), 1)
            if total >= CHARACTERS:
                break
    seen = f"{lost:,} of {total:,} characters lost" + (", spelling or spaces changed" if folded else "")
    expected = "every character as it was"
    if not lost and not folded:
        return Verdict(GREEN, seen, expected)
    advice = "train the tokenizer on this very text (data.tokenizer bpe), or take one whose bytes cover every character"
    return Verdict(YELLOW if lost <= FEW_LOST * total else RED, seen, expected, advice)


def _folded(text: str) -> str:
    """What a tokenizer that normalises on purpose leaves of a text."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def loss_at_start(trial: Trial) -> Verdict:
    """A model that knows nothing spreads its probability evenly: ln V nats."""
    model, even = trial.job.model, math.log(trial.job.model.config.vocab_size)
    with torch.no_grad(), evaluating(model):
        loss = trial.losses(model)[1].item()
    seen, expected = f"{loss:.3f} nats per token", f"{'near' if trial.fresh else 'below'} ln V = {even:.3f}"
    off = abs(loss / even - 1) if trial.fresh else loss / even - 1
    if off <= NEAR:
        return Verdict(GREEN, seen, expected)
    if not trial.fresh:
        advice = "the weights know less than nothing of this text: were they trained with this tokenizer?"
        return Verdict(YELLOW if math.isfinite(loss) else RED, seen, expected, advice)
    advice = "weights that begin too large make a model sure of nonsense: lower model.initializer_range (0.02 is usual)"
    if loss < even:
        advice = "a fresh model cannot know this: does it see its targets, or are the labels not shifted?"
    return Verdict(RED if not off <= FAR else YELLOW, seen, expected, advice)


def overfits(trial: Trial) -> Verdict:
    """A few sequences can be learned by heart."""
    _, loss, steps = trial.memorised
    counts = torch.unique(trial.batch["labels"], return_counts=True)[1].double()
    shares = counts / counts.sum()
    entropy = -(shares * shares.log()).sum().item()  # what the frequencies alone give, without looking at the input
    seen, expected = f"loss {loss:.3f} after {steps} steps", f"below {entropy / 2:.3f}, half the entropy of its tokens"
    smoothing, entries = trial.job.recipe.label_smoothing, trial.job.model.config.vocab_size
    if smoothing:  # the least that a smoothed loss can be
        rest, hit = smoothing / entries, 1 - smoothing + smoothing / entries
        loss -= -(hit * math.log(hit) + (entries - 1) * rest * math.log(rest))
    if loss <= entropy / 2:
        return Verdict(GREEN, seen, expected)
    if loss <= entropy or steps < STEPS:
        return Verdict(YELLOW, seen, expected, "it learns, but slowly: look at the gradient norm in the first steps")
    advice = (
        "the model does not learn from its input: look for weights without a gradient, or attention that sees nothing"
    )
    return Verdict(RED, seen, expected, advice)


def looks_not_ahead(trial: Trial) -> Verdict:
    """A changed token changes no logit before it."""
    model = trial.memorised[0]
    ids = trial.batch["input_ids"]
    place = ids.shape[1] // 2
    changed = ids.clone()
    changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
    with torch.no_grad(), evaluating(model):
        one, other = (model(input_ids=each, use_cache=False).logits.float() for each in (ids, changed))
    differs = (one - other).abs().amax((0, 2)) / one.abs().max()  # (T,)
    before, after = differs[:place].max().item(), differs[place:].max().item()
    seen = f"a changed token moves earlier logits by {before:.1e} of the largest, later ones by {after:.1e}"
    expected = f"earlier ones by less than {ROUNDING:.0e}"
    if not before <= ROUNDING:
        return Verdict(RED, seen, expected, "the model reads what it should predict: look at its attention mask")
    if after <= ROUNDING:
        return Verdict(YELLOW, seen, "later logits that move", "the model does not look at its input")
    return Verdict(GREEN, seen, expected)


def shifts_labels_once(trial: Trial) -> Verdict:
    """The run's loss at position t is that of token t+1 and of no other."""
    model, rows = trial.memorised[0], torch.from_numpy(trial.rows).to(trial.device)  # (R, T+1)
    with torch.no_grad(), evaluating(model):
        loss = trial.losses(model)[1].item()
        with trial.job.accelerator.autocast():
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits.double()
    surprise = -logits.log_softmax(-1)  # (R, T, V), in nats
    smoothing, by_shift = trial.job.recipe.label_smoothing, {}
    for shift in (0, 1, 2):
        targets = rows[:, shift:][:, : surprise.shape[1]]
        there = surprise[:, : targets.shape[1]]
        hit = there.gather(2, targets[..., None]).mean()
        by_shift[shift] = ((1 - smoothing) * hit + smoothing * there.mean()).item()
    seen = f"loss {loss:.4f}; for targets 0, 1 and 2 tokens ahead it would be " + ", ".join(
        f"{value:.4f}" for value in by_shift.values()
    )
    expected = "that of 1 token ahead"
    if abs(loss - by_shift[1]) <= LOSS_ROUNDING * max(abs(by_shift[1]), 0.1):
        return Verdict(GREEN, seen, expected)
    nearest = min(by_shift, key=lambda shift: abs(loss - by_shift[shift]))
    advice = {
        0: "labels are not shifted: the model learns to copy",
        2: "labels are shifted twice: by the loop and by the model",
    }
    return Verdict(RED, seen, expected, advice.get(nearest, "the loss leaves out or weighs some of the targets"))


def resumes_exactly(trial: Trial) -> Verdict:
    """Two steps, and one step, a checkpoint and another step, end with the same bits."""
    expected, job = "the same bits as without stopping", trial.job
    if sum(p.numel() * p.element_size() for p in job.model.parameters()) > LARGE:
        return Verdict(YELLOW, "not tried, as it would take too long with so many weights", expected)
    place = job.evaluator.tokens.path
    trial.forget()  # copies are what takes memory here: no more of them at once than a training would take
    with tempfile.TemporaryDirectory(prefix=".checked-", dir=place.parent) as folder:
        folder = Path(folder)
        trainer = Trainer(trial, trial.copy())
        trainer.step()
        captured = state.capture(trainer.accelerator, trainer.model, trainer.optimizer, {"step": 1, "data_step": 1})
        keeper.write_model(trainer.plain, trainer.accelerator.get_state_dict(trainer.model), job.tokenizer, folder)
        state.write(captured, folder / "state")
        trainer.step()
        ended = trainer.plain.state_dict()
        del captured, trainer
        again = Trainer(trial, setup.load_weights(job.model, folder).to(trial.device))
        state.restore(folder / "state", again.accelerator, again.model, again.optimizer)
        again.step()
    pairs = list(zip(ended.items(), again.plain.state_dict().values(), strict=True))
    other = [name for (name, one), two in pairs if not torch.equal(one, two)]
    if not other:
        return Verdict(GREEN, f"all {len(pairs)} tensors the same", expected)
    seen = f"{len(other)} of {len(pairs)} tensors differ, {other[0]} among them"
    if not job.recipe.deterministic:
        return Verdict(YELLOW, seen, expected, "train.deterministic true gives the same bits where the device can")
    return Verdict(
        RED, seen, expected, "what the optimizer or dropout needs is not all saved: a resumed run would differ"
    )


CHECKS: dict[str, Callable[[Trial], Verdict]] = {
    MEMORY: fits_memory,
    "tokenizer keeps the text": round_trip,
    "loss at the start": loss_at_start,
    "one batch can be learned": overfits,
    "no look ahead": looks_not_ahead,
    "labels shifted once": shifts_labels_once,
    "resumes exactly": resumes_exactly,
}
ALONE = ("resumes exactly",)  # collective: done only where one process trains
HEAVY = tuple(name for name in CHECKS if name not in (MEMORY, "tokenizer keeps the text"))


def run_checks(trial: Trial) -> list[Check]:
    """All that can be done here, in order; none with the model where it does not fit the memory."""
    done: list[Check] = []
    with undisturbed():
        for name, check in CHECKS.items():
            alone = trial.job.accelerator.num_processes == 1
            if (name in ALONE and not alone) or (name in HEAVY and done[0].status == RED):
                continue
            begin = time.perf_counter()
            verdict = check(trial)
            done.append(Check(name, **dataclasses.asdict(verdict), seconds=round(time.perf_counter() - begin, 3)))
    return done
