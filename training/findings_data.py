"""Rules about what is learnt: nothing, the wrong thing, too much of it, or what must not be seen.

May import `hub` and `data`. Those that need the model, or a count of the corpus, judge what was found out before
(`Case.probe`, `Case.overlap`) and are silent where nothing was.
"""

import math

from training.findings import ENOUGH, RECENT, Case, Rule, Seen

FLAT = 0.01  # share of the loss that it falls by in the second half, and is flat
NEAR = 0.02  # share of a level that counts as being there
APART = 0.5  # nats between two losses of the same text that cannot be chance
SHARE = 0.5  # of a loss, likewise
WORSE, MUCH_WORSE = 0.02, 0.1  # share by which the validation loss is above its lowest
ERRORS = 3.0  # standard errors below the floor
SURE = 0.9  # of the floor: below that, whatever the sample
COPIED, MOSTLY_COPIED = 0.01, 0.1  # share of the validation documents, beyond what chance makes equal
FAMILIAR = 0.8  # share of the 13-grams of words that training has


def nothing_learnt(case: Case) -> Seen | None:
    begin, now = case.loss_at(0.5), case.loss_at(1.0)
    vocabulary = case.config.get("vocab_size")
    if now is None or case.step < 2 * case.train.warmup_steps or begin - now > FLAT * now:
        return None
    levels = {"the entropy of single tokens": case.unigram, "ln V": vocabulary and math.log(vocabulary)}
    reached = [(name, level) for name, level in levels.items() if level and now > (1 - NEAR) * level]
    if not reached:
        return None
    name, level = reached[-1]  # the higher one is the worse
    return Seen(
        "problem",
        f"the loss stands still at {now:.3f}, where {name} is {level:.3f}",
        f"below {(1 - NEAR) * level:.3f} after {ENOUGH} steps, or still falling",
        "The model has learnt no more than frequencies: look at the learning rate, then at what the model is fed.",
        [("training loss", case.step // 2, begin), ("training loss", case.step, now)],
        look=("python", "-m", "training.pretrain", "--check", "--recipe", str(case.run.path / "recipe.yaml")),
    )


def labels_not_shifted(case: Case) -> Seen | None:
    """The loss trained on and the loss evaluated, of the same text, must be one; else the model says what it learnt."""
    offset = case.probe and case.probe.get("learnt_offset", 1)
    evaluated, trained = case.last("eval_train_loss"), _mean_loss(case)
    apart = trained is not None and evaluated is not None and trained < min(evaluated[1] - APART, SHARE * evaluated[1])
    if not apart and offset in (None, 1):
        return None
    evidence = [("loss in the loop", case.step, trained)] if trained is not None else []
    evidence += [("loss of the next token, evaluated", *evaluated)] if evaluated is not None else []
    if case.probe:
        evidence += [(f"loss of the token {k} ahead", None, loss) for k, loss in enumerate(case.probe["losses"])]
    what = {0: "the token it has just read", 2: "the token after the next"}.get(offset)
    return Seen(
        "problem",
        f"the model predicts {what}"
        if what
        else f"the loop's loss is {trained:.3f}, and the same text's next-token loss is {evaluated[1]:.3f}",
        f"the loop's loss and the evaluated one within {APART:g} nats; the next token predicted best",
        "The labels are not the inputs shifted by one. Look at what the model does with `labels` and `shift_labels`: "
        "they should be shifted once, by the loader or by the model.",
        evidence,
        look=("python", "-m", "training.pretrain", "--check", "--recipe", str(case.run.path / "recipe.yaml")),
    )


def future_leak(case: Case) -> Seen | None:
    if not case.probe or not case.probe["leak"]:
        return None
    return Seen(
        "problem",
        f"other tokens from position {case.probe['changed']} on change scores before it, "
        f"by up to {case.probe['difference']:.2g}",
        f"no change beyond rounding, {case.probe['tolerance']:.1g}",
        "The model sees what it is to predict. Look at the attention mask, and at anything that mixes positions.",
        [("largest change of an earlier score", case.probe["step"], case.probe["difference"])],
        look=("python", "-m", "training.pretrain", "--check", "--recipe", str(case.run.path / "recipe.yaml")),
    )


def below_floor(case: Case) -> Seen | None:
    excess, error, floor = case.last("excess"), case.last("excess_se"), case.floor
    loss = case.last("val_loss")
    by_error = excess is not None and error is not None and excess[1] < -ERRORS * error[1]
    by_far = loss is not None and floor is not None and loss[1] < SURE * floor
    if not (by_error or by_far or case.info["result"].get("leak")):
        return None
    gap = excess[1] if excess is not None else loss[1] - floor if by_far else case.info["result"].get("excess", 0.0)
    evidence = [("excess over the floor", *excess), ("its standard error", *error)] if by_error else []
    evidence += [("validation loss", *loss)] if loss is not None else []
    return Seen(
        "problem",
        f"the validation loss is {-gap:.3f} nats per token below the corpus's own entropy",
        f"not below it by more than {ERRORS:g} standard errors",
        "No model can do that with text it has not seen: either validation text was trained on, or the future is "
        "visible. The figures of this run mean nothing.",
        evidence,
        look=_statistics(case),
    )


def duplicated_validation(case: Case) -> Seen | None:
    if not case.overlap:
        return None
    exact, expected, familiar = (case.overlap[name] for name in ("exact", "expected", "ngrams"))
    # texts of a grammar share their phrases in all innocence
    if exact - expected <= COPIED and (familiar <= FAMILIAR or case.floor is not None):
        return None
    return Seen(
        "problem" if exact - expected > MOSTLY_COPIED or familiar > FAMILIAR else "warning",
        f"{exact:.1%} of the validation documents are in training, word for word, and {familiar:.1%} of the 13-grams",
        f"{COPIED:.0%} of the documents beyond chance, {FAMILIAR:.0%} of the 13-grams",
        "The validation loss measures memory. Make the corpus again without the repeated documents.",
        [
            ("share of the documents copied", None, exact),
            ("share equal by chance", None, expected),
            ("share of the 13-grams in training", None, familiar),
        ],
        look=_statistics(case),
    )


def overfitting(case: Case) -> Seen | None:
    steps, losses = case.curve("val_loss")
    trained = dict(zip(*case.curve("eval_train_loss"), strict=True))
    if len(losses) < 3:
        return None
    best = int(losses.argmin())
    low, now, at, last = float(losses[best]), float(losses[-1]), steps[best], steps[-1]
    fell = trained.get(at, 0.0) > trained.get(last, math.inf)
    if now <= (1 + WORSE) * low or losses[-2] <= low or not fell:
        return None
    return Seen(
        "problem" if now > (1 + MUCH_WORSE) * low else "warning",
        f"the validation loss rose from {low:.3f} at step {int(at):,} to {now:.3f}, while the training loss fell",
        f"within {WORSE:.0%} of its lowest",
        "The text is being learnt by heart: take the checkpoint `best`, more text, or fewer passes over it; weight "
        "decay and dropout delay it.",
        [
            ("validation loss", int(at), low),
            ("validation loss", int(last), now),
            ("loss on training text", int(at), float(trained[at])),
            ("loss on training text", int(last), float(trained[last])),
        ],
        {"train": {"weight_decay": max(0.1, 2 * case.train.weight_decay)}},
        before=int(at) + 1,
    )


def _mean_loss(case: Case) -> float | None:
    _, losses = case.curve("train_loss")
    return float(losses[-RECENT:].mean()) if len(losses) >= RECENT else None


def _statistics(case: Case) -> tuple[str, ...]:
    name = (case.info["inputs"].get("corpus") or {}).get("name")
    return ("python", "-m", "data.corpora", "show", name, "--statistics") if name else ()


RULES = (
    Rule(
        "labels_not_shifted",
        "The labels are not shifted once",
        "A model that may copy its input needs no more than that; the evaluation shifts by itself and so disagrees.",
        labels_not_shifted,
    ),
    Rule(
        "future_leak",
        "The model sees the future",
        "In a causal model the scores at a position depend on it and on those before, and on nothing else.",
        future_leak,
    ),
    Rule(
        "below_floor",
        "The loss is below what is possible",
        "The expected loss of any model is at least the entropy of the source (Shannon 1948, Gibbs' inequality).",
        below_floor,
    ),
    Rule(
        "duplicated_validation",
        "Validation text is in training",
        "Contamination by whole documents and by 13-grams (arXiv:2005.14165, appendix C; arXiv:2107.06499).",
        duplicated_validation,
    ),
    Rule(
        "nothing_learnt",
        "Nothing is learnt",
        "ln V is the loss of knowing nothing, the entropy of single tokens that of knowing frequencies alone.",
        nothing_learnt,
    ),
    Rule(
        "overfitting",
        "The model overfits",
        "Validation loss that rises while training loss falls is learning by heart.",
        overfitting,
    ),
)
