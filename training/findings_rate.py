"""Rules about the optimizer: learning rate, divergence, spikes, clipping, batch.

May import `hub` and `data`. A threshold is a size that theory gives, or lies between what small healthy runs and the
same runs at ten times and a tenth of their rate measured (docs/diagnose.md has those figures).
"""

import math

import numpy as np

from hub.measures import SPIKE
from training.findings import ENOUGH, RECENT, SAMPLED, Case, Curve, Rule, Seen, rounded, scaled_rates

# The update ratio at the full rate. AdamW's steps follow the rate and the width, hence the wide range; Muon's step has
# the size of its rate wherever a matrix starts at unit gain.
GUIDE = {"adamw": 1e-3, "muon": 2e-2}
LARGE = {"adamw": 3e-2, "muon": 1e-1}
LITTLE_STEP, LITTLE_WAY = 0.2, 3.0  # a fifth of the guide is little, where all steps together go less far than so
LEAST_RATE = 1e-3  # share of the peak; steps smaller than that are rounding
SHORT_WAY = 0.5  # too short at any ratio: the weights stay nearly what they were drawn as
UNIT_GAIN, GAIN_A_STEP = 3.0, 0.25  # weights that grow beyond the first, by the second times the root of the steps
FALLING = 0.02  # nats over the later half: less is no more to be had, and gradients that are gone make small steps
RISE = 0.1  # nats, and share of the loss, by which it may lie above its lowest
OFTEN = 3  # spikes
ALWAYS = 0.95  # share of the steps clipped
NOISY = 100.0  # noise scale over batch


def not_finite(case: Case) -> Seen | None:
    losses = zip(case.columns["step"][-RECENT:], case.columns.get("train_loss", [])[-RECENT:], strict=False)
    bad = [(step, loss) for step, loss in losses if isinstance(loss, float) and not math.isfinite(loss)]
    if not bad:
        return None
    step, loss = bad[0]
    return Seen(
        "problem",
        f"the loss is {loss} at step {step:,}",
        "a finite loss at every step",
        "Go on from a checkpoint before it with a lower learning rate; --train.precision fp32 where it was fp16.",
        [("loss", step, loss)],
        scaled_rates(case.train, 1 / 3),
        before=step,
    )


def rate_too_high(case: Case) -> Seen | None:
    return _loss_rises(case) or _large_steps(case) or _weights_grow(case)


def _loss_rises(case: Case) -> Seen | None:
    steps, losses = case.curve("train_loss")
    if len(losses) < ENOUGH:
        return None
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    means = (sums[RECENT:] - sums[:-RECENT]) / RECENT
    lowest = int(means.argmin())
    if means[-1] - means[lowest] <= max(RISE, RISE * means[lowest]):
        return None
    at = int(steps[lowest + RECENT - 1])
    return Seen(
        "problem",
        f"the training loss rose from {means[lowest]:.3f} around step {at:,} to {means[-1]:.3f}",
        f"within {RISE:g} nats and {RISE:.0%} of its lowest, {RECENT} steps averaged",
        "Go on from before the rise with a third of the learning rate, or with a longer warm-up.",
        [("training loss", at, float(means[lowest])), ("training loss", int(steps[-1]), float(means[-1]))],
        scaled_rates(case.train, 1 / 3),
        before=at,
    )


def _large_steps(case: Case) -> Seen | None:
    ratio, limit = full_ratio(case), LARGE[case.train.optimizer]
    if ratio is None or ratio <= limit:
        return None
    guide = GUIDE[case.train.optimizer]
    return Seen(
        "problem",
        f"a step at the full rate moves the weights by {ratio:.2g} of their size",
        f"at most {limit:g} with {case.train.optimizer}; about {guide:g} is usual",
        "Begin anew with a lower learning rate: weights that jump about have forgotten where they began.",
        _newest(case, "update_ratio"),
        scaled_rates(case.train, max(guide / ratio, 0.1)),
        fresh=True,
    )


def _weights_grow(case: Case) -> Seen | None:
    weights = case.last("weight_rms")
    if weights is None or not case.width or not case.from_scratch:
        return None
    step, rms = weights
    gain = rms * math.sqrt(case.width)
    limit = max(UNIT_GAIN, GAIN_A_STEP * math.sqrt(step))
    if gain <= limit:
        return None
    return Seen(
        "problem",
        f"after {step:,} steps a typical weight is {gain:.1f}/√width",
        f"at most {limit:.1f}/√width at this step; about 1 is where such weights begin",
        "Begin anew with a tenth of the learning rate: steps this long made the weights grow until they no longer "
        "turn, and most of what was learnt at first is lost in them.",
        [("weight RMS", step, rms)],
        scaled_rates(case.train, 0.1),
        fresh=True,
    )


def rate_too_low(case: Case) -> Seen | None:
    ratio, begin, now = full_ratio(case), case.loss_at(0.5), case.loss_at(1.0)
    if ratio is None or begin is None or not case.from_scratch:
        return None
    if not case.ended and case.step < case.planned / 4:
        return None
    way, guide = distance(case) + ratio * case.rate_ahead(), GUIDE[case.train.optimizer]
    if not (way < SHORT_WAY or (ratio < LITTLE_STEP * guide and way < LITTLE_WAY)) or begin - now < FALLING:
        return None
    return Seen(
        "problem",
        f"all {case.planned:,} steps together move the weights by {way:.2g} times their size, "
        f"{ratio:.1e} a step at the full rate, and the loss is still falling",
        f"more than {SHORT_WAY:g} times; or {LITTLE_STEP * guide:.0e} a step with {case.train.optimizer}",
        "Raise the learning rate, or take many more steps.",
        [*_newest(case, "update_ratio"), ("training loss", case.step // 2, begin), ("training loss", case.step, now)],
        scaled_rates(case.train, min(max(rounded(1 / way), 3.0), 10.0)),
        fresh=True,
    )


def full_ratios(case: Case) -> Curve:
    """The update ratios behind the warm-up, each divided by the share of the peak rate it was measured at."""
    steps, ratios = case.curve("update_ratio")
    rates = np.array([case.rate(int(step)) for step in steps])
    counted = (steps > case.train.warmup_steps) & (rates > LEAST_RATE)
    return steps[counted], ratios[counted] / rates[counted]


def full_ratio(case: Case) -> float | None:
    """What a step at the full rate moves the weights by, in parts of their size; None before it was measured."""
    _, ratios = full_ratios(case)
    return float(np.median(ratios)) if len(ratios) else None


def distance(case: Case) -> float:
    """Sum of the update ratios of all steps so far: between measurements they follow the schedule."""
    steps, ratios = full_ratios(case)
    places = np.linspace(1, case.step, SAMPLED)
    rates = np.array([case.rate(int(place)) for place in places])
    return float((np.interp(places, steps, ratios) * rates).mean() * case.step)


def spikes(case: Case) -> Seen | None:
    steps, _ = case.curve(SPIKE)
    if len(steps) < OFTEN:
        return None
    return Seen(
        "warning",
        f"{len(steps)} loss spikes, the last at step {int(steps[-1]):,}",
        f"fewer than {OFTEN}",
        "Go on from before the last with half the learning rate; --train.spike_action rewind skips the batches.",
        [("loss above", int(step), float(limit)) for step, limit in zip(*case.curve(SPIKE), strict=True)][-5:],
        scaled_rates(case.train, 0.5),
        before=int(steps[-1]),
    )


def always_clipped(case: Case) -> Seen | None:
    _, clipped = case.curve("clipped")
    late = clipped[len(clipped) // 2 :]
    if len(clipped) < ENOUGH or late.mean() < ALWAYS:
        return None
    norms = case.curve("grad_norm")[1][-RECENT:]
    typical = float(np.median(norms)) if len(norms) else case.train.max_grad_norm
    return Seen(
        "warning",
        f"the gradient was clipped in {late.mean():.0%} of the later steps, to a typical {typical:.2g}"
        f" times less than its length" if typical > 1.5 else f"the gradient was clipped in {late.mean():.0%} of steps",
        f"less than {ALWAYS:.0%}",
        "A limit that always acts sets the size of the step: raise it above the usual gradient norm.",
        [("gradient norm, median", case.step, typical)],
        {"train": {"max_grad_norm": rounded(2 * typical)}},
    )  # fmt: skip


def noisy_batch(case: Case) -> Seen | None:
    noise, batch = case.last("noise_scale"), case.train.batch_size * case.train.context
    if noise is None or noise[1] < NOISY * batch:
        return None
    return Seen(
        "warning",
        f"the gradient noise scale is {noise[1]:,.0f} tokens, {noise[1] / batch:,.0f} times the batch",
        f"less than {NOISY:g} times the batch of {batch:,} tokens",
        "A step follows noise more than the gradient: enlarge the batch, or let the learning rate fall.",
        [("noise scale in tokens", *noise)],
        {"train": {"batch_size": 4 * case.train.batch_size, "accumulate": 4 * case.train.accumulate}},
    )


def _newest(case: Case, name: str) -> list[tuple[str, int, float]]:
    steps, values = case.curve(name)
    said = name.replace("_", " ")
    return [(said, int(step), float(value)) for step, value in zip(steps[-3:], values[-3:], strict=True)]


RULES = (
    Rule("not_finite", "The loss is not a number", "Nothing trained after such a step can be used.", not_finite),
    Rule(
        "rate_too_high",
        "The learning rate is too high",
        "Updates of a healthy run are about 1e-3 of the weights, and weights stay near unit gain (arXiv:2310.17813).",
        rate_too_high,
    ),
    Rule(
        "rate_too_low",
        "The learning rate is too low",
        "To learn features the weights must change by about their own size (arXiv:2310.17813).",
        rate_too_low,
    ),
    Rule("spikes", "The loss spikes", "Spikes come from large steps on single batches (arXiv:2204.02311).", spikes),
    Rule(
        "always_clipped",
        "The gradient is always clipped",
        "Clipping is for exceptions (arXiv:1211.5063); as a rule it is a second, hidden learning rate.",
        always_clipped,
    ),
    Rule(
        "noisy_batch",
        "The batch is small for its noise",
        "At a noise scale of k batches a step does 1/(1+k) of what a noiseless one would (arXiv:1812.06162, eq. 2.7).",
        noisy_batch,
    ),
)
