"""Figures of what was changed in a model and what came of it, with the numbers behind each.

Of ours here `interpret.ablation`, `patching`, `steering` and `figures`. Each `draw_…` has a `…_numbers` beside it: all
that the figure shows, for `interpret.figures.save`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret.ablation import HALVES, Effect, Sweep
from interpret.figures import label
from interpret.patching import Patching
from interpret.steering import Steered

LABELS = 64  # more tokens than that cannot be told apart along an axis
TITLES = {
    "resid_pre": "residual stream entering (resid_pre)",
    "attn_out": "attention (attn_out)",
    "mlp_out": "feed-forward (mlp_out)",
    "resid_post": "residual stream leaving (resid_post)",
    "z": "single heads (z)",
}


def draw_effect(effect: Effect) -> Figure:
    """The loss of each token with and without the removed parts."""
    figure = Figure(figsize=(max(6.0, min(16.0, 2 + 0.22 * len(effect.read.ids))), 3.8), layout="constrained")
    axis = figure.subplots()
    places = np.arange(1, len(effect.read.ids))
    axis.plot(places, effect.losses_before, ".-", label=f"as it is: {effect.loss_before:.3f}", color="0.45")
    removed = ", ".join(map(str, effect.removed))
    axis.plot(places, effect.losses_after, ".-", label=f"without {removed}: {effect.loss_after:.3f}", color="C3")
    _tokens(axis, effect.read.tokens)
    axis.set(xlabel="token that is guessed", ylabel="loss, nats", ylim=(0, None))
    axis.legend(title="mean, nats per token")
    return figure


def effect_numbers(effect: Effect) -> dict[str, np.ndarray]:
    return {
        "removed": np.array([str(target) for target in effect.removed]),
        "losses_before": effect.losses_before.numpy(),
        "losses_after": effect.losses_after.numpy(),
        "kl": np.array(effect.kl),
        "tokens": np.array(effect.read.tokens),
        "ids": np.array(effect.read.ids),
    }


def draw_sweep(sweep: Sweep) -> Figure:
    """What removing each head, and each half of a layer, adds to the loss: each with its own scale of colours."""
    L, H = sweep.heads.shape
    figure = Figure(figsize=(3.6 + min(12.0, 0.45 * H + 1.2), 1.6 + min(12.0, 0.36 * L)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[max(H, 3), 2])
    _map(figure, left, sweep.heads - sweep.loss, "nats per token")
    _map(figure, right, sweep.halves - sweep.loss, "nats per token")
    left.set(title="without one head", xlabel="head", ylabel="layer")
    right.set(title="without one half", xticks=range(2))
    right.set_xticklabels(HALVES, rotation=30)
    return figure


def sweep_numbers(sweep: Sweep) -> dict[str, np.ndarray]:
    return {
        "loss": np.array(sweep.loss),
        "heads": sweep.heads,
        "halves": sweep.halves,
        "tokens": np.array(sweep.read.tokens),
        "ids": np.array(sweep.read.ids),
    }


def draw_patching(found: Patching) -> Figure:
    """A panel for each site: layer by token, or layer by head."""
    T, (L, H) = len(found.clean.ids), next(iter(found.differences.values())).shape
    count = len(found.differences)
    side = min(12.0, 2.6 + 0.24 * max(T, H))
    figure = Figure(figsize=(side, count * (1.9 + min(6.0, 0.22 * L))), layout="constrained")
    for axis, site in zip(figure.subplots(count, squeeze=False)[:, 0], found.differences, strict=True):
        _map(figure, axis, found.restored(site), "restored", top=1.0)
        axis.set(title=TITLES[site], ylabel="layer")
        if site == "z":
            axis.set_xlabel("head, at all tokens")
        else:
            _tokens(axis, pairs(found))
    figure.suptitle(
        f"clean activations in the corrupted run: logit of {label(found.answer.token)!r} over "
        f"{label(found.wrong.token)!r}\n0 as corrupted ({found.corrupted_difference:.2f}), "
        f"1 as clean ({found.clean_difference:.2f})",
        fontsize=10,
    )
    return figure


def patching_numbers(found: Patching) -> dict[str, np.ndarray]:
    return {
        **{f"difference_{site}": values for site, values in found.differences.items()},
        **{f"restored_{site}": found.restored(site) for site in found.differences},
        "clean_difference": np.array(found.clean_difference),
        "corrupted_difference": np.array(found.corrupted_difference),
        "clean_tokens": np.array(found.clean.tokens),
        "corrupted_tokens": np.array(found.corrupted.tokens),
        "answers": np.array([found.answer.token, found.wrong.token]),
    }


def pairs(found: Patching) -> list[str]:
    """The prompts' tokens along one axis: `clean/corrupted` where they differ."""
    both = zip(found.clean.tokens, found.corrupted.tokens, strict=True)
    return [one if one == other else f"{one}/{other}" for one, other in both]


def draw_steering(found: Steered) -> Figure:
    """How likely each of a few next tokens is with less and more of the direction."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for token, probabilities in zip(found.tokens, found.probabilities.T, strict=True):
        axis.plot(found.coefficients, probabilities, ".-", label=repr(label(token)))
    axis.axvline(0, color="0.7", linewidth=0.8)
    axis.set(xlabel=f"coefficient of the direction at {found.direction.name}", ylabel="probability of the next token")
    axis.legend(fontsize=8)
    return figure


def steering_numbers(found: Steered) -> dict[str, np.ndarray]:
    return {
        "direction": found.direction.vector.numpy(),
        "site": np.array(found.direction.name),
        "coefficients": found.coefficients,
        "probabilities": found.probabilities,
        "tokens": np.array(found.tokens),
        "plain": np.array("".join(token.text for token in found.plain)),
        "steered": np.array("".join(token.text for token in found.steered)),
    }


def _map(figure: Figure, axis: Axes, values: np.ndarray, unit: str, top: float | None = None) -> None:
    """Values by layer (0 above) and column, both signs told apart."""
    top = top or float(np.abs(values).max()) or 1.0
    image = axis.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axis, label=unit)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _tokens(axis: Axes, tokens: list[str]) -> None:
    """Tokens along the horizontal axis, where there is room for them."""
    if len(tokens) <= LABELS:
        axis.set_xticks(range(len(tokens)), [label(token) for token in tokens], rotation=90, fontsize=8)
