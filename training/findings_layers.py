"""Rules about the layers: dead units, collapsed attention, attention scores that grow.

May import `hub` and `data`. What a layer lost while it trained does not come back with a smaller step: where the
architecture is to blame, the change begins anew.
"""

from statistics import fmean

from training.findings import Case, Rule, Seen, scaled_rates

DEAD, MANY_DEAD = 10.0, 50.0  # % of a layer's units
COLLAPSED = 0.05  # of the possible entropy, mean over the heads of a layer
HUGE, GROWTH = 100.0, 2.0  # an attention score, and how much larger than before it is when it grows
RELU_FAMILY = ("relu", "relu2")  # whose units can fall silent for good


def dead_layer(case: Case) -> Seen | None:
    now = {layer: values[-1] for layer, values in case.parts("dead_perc").items()}
    worst = {layer: (step, value) for layer, (step, value) in now.items() if value > DEAD}
    if not worst:
        return None
    layer, (_, most) = max(worst.items(), key=lambda item: item[1][1])
    relu = case.config.get("hidden_act") in RELU_FAMILY
    return Seen(
        "problem" if most >= MANY_DEAD else "warning",
        f"{most:.0f} % of the units of {layer} are silent on every token"
        + (f", and more than {DEAD:g} % in {len(worst) - 1} other layers" if len(worst) > 1 else ""),
        f"{DEAD:g} % of a layer; from {MANY_DEAD:g} % on it is a problem",
        "Dead units seldom come back. Begin anew "
        + ("with GELU, whose units are never quite silent" if relu else "with a third of the learning rate"),
        [(f"dead units of {name}, %", *values) for name, values in worst.items()],
        {"model": {"hidden_act": "gelu"}} if relu else scaled_rates(case.train, 1 / 3),
        fresh=True,
    )


def collapsed_attention(case: Case) -> Seen | None:
    now = {layer: (values[-1][0], _mean(values[-1][1])) for layer, values in case.parts("attention_entropy").items()}
    collapsed = {layer: (step, value) for layer, (step, value) in now.items() if value < COLLAPSED}
    if not collapsed:
        return None
    layer, (_, least) = min(collapsed.items(), key=lambda item: item[1][1])
    return Seen(
        "warning",
        f"the heads of {layer} attend to single tokens: their entropy is {least:.3f} of the possible",
        f"at least {COLLAPSED:g}, mean over the heads of a layer",
        "Begin anew " + _remedy(case),
        [(f"attention entropy of {name}", *values) for name, values in collapsed.items()],
        _change(case),
        fresh=True,
    )


def growing_attention(case: Case) -> Seen | None:
    curves = case.parts("max_attention_logit")
    growing = {
        layer: values
        for layer, values in curves.items()
        if _peak(values[-1][1]) > HUGE and _peak(values[-1][1]) > GROWTH * _peak(values[0][1])
    }
    if not growing:
        return None
    layer, values = max(growing.items(), key=lambda item: _peak(item[1][-1][1]))
    (began, first), (step, last) = values[0], values[-1]
    return Seen(
        "warning",
        f"the largest attention score of {layer} grew from {_peak(first):.0f} to {_peak(last):.0f}",
        f"at most {HUGE:g}, or no more than {GROWTH:g} times what it was at first",
        "Before it diverges, begin anew " + _remedy(case),
        [(f"largest score of {layer}", began, _peak(first)), (f"largest score of {layer}", step, _peak(last))],
        _change(case),
        fresh=True,
    )


def _remedy(case: Case) -> str:
    normed = case.config.get("qk_norm", True)
    return "with a third of the learning rate." if normed else "with QK-norm, which bounds the scores."


def _change(case: Case) -> dict:
    return scaled_rates(case.train, 1 / 3) if case.config.get("qk_norm", True) else {"model": {"qk_norm": True}}


def _mean(value: float | list) -> float:
    """Of a layer's heads, where they were measured one by one."""
    return fmean(value) if isinstance(value, list) else value


def _peak(value: float | list) -> float:
    return max(value) if isinstance(value, list) else value


RULES = (
    Rule(
        "dead_layer",
        "A layer's units are dead",
        "A ReLU that is 0 on every input has no gradient: nothing can wake it (arXiv:1903.06733).",
        dead_layer,
    ),
    Rule(
        "collapsed_attention",
        "Attention has collapsed",
        "Entropy collapse precedes and accompanies instability (arXiv:2303.06296).",
        collapsed_attention,
    ),
    Rule(
        "growing_attention",
        "Attention scores grow",
        "Scores in the hundreds make the softmax one-hot and its gradient vanish (arXiv:2302.05442).",
        growing_attention,
    ),
)
