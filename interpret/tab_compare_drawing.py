"""What the Two models view shows, as HTML text: numbers in, markup out.

May import `page`; of ours here `interpret.compare` and its neighbours, for what they found.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from interpret.compare import Comparison
from interpret.compare_weights import Changes
from interpret.writing import Token
from page.heatmap import heatmap
from page.html import Markup, code, escape, facts, note, table
from page.tokens import shaded_tokens, visible

SHOWN = 128  # tokens of a prompt: a browser is slow with more cells
PATTERN = 32  # tokens of one head's attention: more cannot be told apart beside another
BARS = 16  # of the changes of weights; the heat map has all of them
OUTSIDE = "outside the layers"
HINT_HEAD = note("Click a head to see what it attends to in both models.")

Refs = tuple[str, str]


def losses(found: Comparison, refs: Refs) -> Markup:
    """How much the prompt costs both, which of its tokens, and the difference token by token."""
    (one, other), T = found.mean_losses, min(len(found.tokens.units), SHOWN)
    said = note(
        Markup(
            f"<b>{escape(refs[0])}</b> pays {one:.4f} nats per {found.tokens.unit}, <b>{escape(refs[1])}</b> "
            f"{other:.4f} ({other - one:+.4f}). {escape(found.tokens.note)} {_cut(found)}"
        )
    )
    units = [visible(unit) for unit in found.tokens.units[:T]]
    columns = [(ref, _shaded(found.tokens.units, nats[:T])) for ref, nats in zip(refs, found.losses, strict=True)]
    change = found.losses[1, :T] - found.losses[0, :T]
    difference = heatmap(
        change[None], ["second − first"], units, "nats", "How much more each token costs the second model",
        titles=[[_costs(unit, *pair) for unit, pair in zip(units, found.losses[:, :T].T, strict=True)]], act="token",
    )  # fmt: skip
    return Markup(f"{_h('What each token costs')}{said}{_columns(columns)}{difference}")


def heads(found: Comparison) -> Markup:
    """The divergence of every head's attention."""
    title = _h("Attention, head by head")
    if found.heads is None:
        return Markup(title + note(found.missing["heads"], "warning"))
    drawn = heatmap(
        found.heads, [f"layer {layer}" for layer in found.layers], [str(h) for h in range(found.heads.shape[1])],
        "bits", "Jensen-Shannon divergence, 0 to 1, mean over the tokens that look", act="head", corner="layer \\ head",
    )  # fmt: skip
    return Markup(title + drawn)


def head(name: str, value: float, both: Sequence[np.ndarray], units: Sequence[str], refs: Refs) -> Markup:
    """One head's attention in both models, over the first tokens."""
    T = min(len(units), PATTERN)
    names = [visible(unit) for unit in units[:T]]
    cut = f" Its first {T} tokens are shown." if len(units) > T else ""
    drawn = [
        (ref, heatmap(weights[:T, :T], names, names, "weight", top=1.0, corner="looks \\ at"))
        for ref, weights in zip(refs, both, strict=True)
    ]
    return Markup(f"{_h(name)}{note(f'Jensen-Shannon divergence {value:.4f}.{cut}')}{_columns(drawn)}")


def lens(found: Comparison) -> Markup:
    """How far apart what each layer would say is, at every token."""
    title = _h("What each layer would say next")
    if found.lens is None:
        return Markup(title + note(found.missing["lens"], "warning"))
    T = min(len(found.tokens.units), SHOWN)
    units = [visible(unit) for unit in found.tokens.units[:T]]
    drawn = heatmap(
        found.lens[:, :T], found.rows, units, "nats", act="cell", corner="behind \\ token",
        title="KL(first ‖ second) of the next token by the logit lens; the last row is the models themselves",
    )  # fmt: skip
    return Markup(f"{title}{drawn}<p class='lab-compare-hint'>Click a cell for both models' likeliest tokens.</p>")


def guesses(said: str, both: Sequence[list[tuple[str, float]]], refs: Refs) -> Markup:
    """The likeliest next tokens of both models."""
    rows = [(f"{token!r}", f"{p:.1%}", f"{other!r}", f"{q:.1%}") for (token, p), (other, q) in zip(*both, strict=True)]
    drawn = table([refs[0], "", refs[1], ""], rows, caption=said)
    return Markup(f'<div class="lab-compare-guesses">{drawn}</div>')


def changes(found: Changes | None, why: str) -> Markup:
    """The largest changes of weights as bars, and those of all layers as a heat map."""
    title = _h("Weights")
    if found is None:
        return Markup(title + note(why, "warning"))
    if not any(one.change for one in found.matrices):
        return Markup(title + note("Every matrix is the same in both models."))
    largest = sorted(found.matrices, key=lambda one: -one.relative)[:BARS]
    most = largest[0].relative
    rows = [
        (one.name, _bar(one.relative / most if np.isfinite(most) else 0.0), f"{one.relative:.2%}",
         f"{one.change:.4g}", f"{one.norm:.4g}")
        for one in largest
    ]  # fmt: skip
    head = ["matrix", "", "change", "its spectral norm", "of the first's matrix"]
    caption = f"Spectral norm of second − first; the {len(largest)} largest of {len(found.matrices)} matrices"
    left = f"Matrices that are not in both models with the same shape: {len(found.left_out)}." if found.left_out else ""
    return Markup(title + table(head, rows, caption, numbers=3) + (note(left) if left else "") + _by_layer(found))


def samples(both: tuple[list[Token], list[Token]], refs: Refs, seed: int) -> Markup:
    """How both go on behind the prompt, shaded by how likely each token was."""
    columns = [
        (ref, shaded_tokens([(one.token, one.probability, f"{one.probability:.1%}") for one in text]))
        for ref, text in zip(refs, both, strict=True)
    ]
    return Markup(f"{_h(f'How both go on, seed {seed}')}{_columns(columns)}")


def saved(figure: Path, numbers: Path, command: str) -> Markup:
    """Where the figure lies, and what makes it again."""
    return Markup(facts([("figure", figure), ("numbers", numbers)]) + code(command))


def _by_layer(found: Changes) -> Markup:
    """Every matrix of the layers, relative change by layer and name."""
    inside = [one for one in found.matrices if one.layer is not None]
    if not inside:
        return Markup("")
    layers, names = sorted({one.layer for one in inside}), list(dict.fromkeys(one.module for one in inside))
    values = np.full((len(layers), len(names)), np.nan)
    for one in inside:
        values[layers.index(one.layer), names.index(one.module)] = 100 * one.relative
    rows = [f"layer {layer}" for layer in layers]
    return heatmap(values, rows, names, "%", "Change of every matrix in the layers", corner="layer \\ matrix")


def _bar(share: float) -> Markup:
    return Markup(f'<span class="lab-compare-bar"><i style="width:{share:.1%}"></i></span>')


def _shaded(units: Sequence[str], nats: np.ndarray) -> Markup:
    """Units shaded by the probability that they had."""
    return shaded_tokens(
        [
            (unit, 1.0, "not foretold") if np.isnan(x) else (unit, float(np.exp(-x)), f"{x:.3f} nats, {np.exp(-x):.1%}")
            for unit, x in zip(units[: len(nats)], nats, strict=True)
        ]
    )


def _costs(unit: str, one: float, other: float) -> str:
    if np.isnan(one) or np.isnan(other):
        return f"{unit}: not foretold"
    return f"{unit}: {one:.3f} and {other:.3f} nats, {other - one:+.3f}"


def _cut(found: Comparison) -> str:
    units = len(found.tokens.units)
    return f"The first {SHOWN} of {units} tokens are shown." if units > SHOWN else ""


def _columns(parts: Sequence[tuple[str, Markup]]) -> Markup:
    """Side by side, below one another where there is no room."""
    columns = "".join(f"<section><h4>{escape(name)}</h4>{content}</section>" for name, content in parts)
    return Markup(f'<div class="lab-compare-columns">{columns}</div>')


def _h(words: str) -> Markup:
    return Markup(f'<h3 class="lab-compare-h">{escape(words)}</h3>')
