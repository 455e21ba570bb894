"""How examples look before a model is trained on them: as tokens, their lengths, the steps they make, the memory.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself. What is drawn
is as `finetune.preview.Preview`.
"""

import numpy as np

from page.chart import bar_chart
from page.html import Markup, escape, facts, note
from page.runs import count
from page.tokens import scored_tokens
from page.training import gigabytes, gpus

BINS = 24  # bars of the histogram of lengths, at most
SEEN = 10**6  # bytes; a smaller part of the memory is not worth a word
LEGEND = '<p class="lab-train-hint"><span class="lab-tune-legend">Set off</span>: what is learnt. Grey: only read.</p>'


def summary(found) -> Markup:
    """What a person should know first: mistakes, numbers of examples, lengths, steps, and whether it fits."""
    estimate = found.estimate
    rows = [
        ("examples", _with(f"{found.train_examples:,} to learn from", _held_out(found))),
        ("tokens of one", _with(_spread(found), f"the longest is {found.longest}" if found.longest else "")),
        ("longer than the context", _beyond(found)),
        ("scored", _with(f"{found.scored_share:.0%} of the tokens", "the answers: the rest is only read")),
        ("an answer ends with", found.end),
        (
            "steps",
            _with(f"{found.steps:,}", f"{found.steps_per_epoch:,.4g} an epoch, {count(found.tokens)} tokens in all"),
        ),
        ("padding", _with(f"{found.padding:.0%} of what is computed", _packing(found))),
        ("trained", _with(f"{estimate.trainable:,} parameters", f"of {estimate.parameters:,} with the base")),
        ("memory", _memory(estimate)),
        ("largest batch that fits", _largest(found)),
    ]
    said = "".join(note(sentence, "warning") for sentence in found.notes)
    return Markup(said + facts(rows) + gpus(estimate.on_gpus(found.tokens)))


def examples(found) -> Markup:
    """The first examples token by token, and how long all are."""
    shown = "".join(_example(one) for one in found.shown)
    return Markup(f'{LEGEND}<div class="lab-tune-columns"><div>{shown}</div><div>{lengths(found)}</div></div>')


def lengths(found) -> Markup:
    """The histogram of the lengths; nothing where all are alike."""
    least, most = min(found.lengths), max(found.lengths)
    if least == most:
        return Markup()
    edges = np.unique(np.linspace(least, most + 1, min(BINS, most - least + 1) + 1).round().astype(int))
    counts, _ = np.histogram(found.lengths, edges)
    return bar_chart(edges.tolist(), counts.tolist(), "tokens in an example", "examples", "Lengths")


def _example(one) -> str:
    kept = len(one.pieces) - one.beyond
    cut = f'<p class="lab-train-hint">{one.beyond:,} tokens more are behind the context.</p>' if one.beyond else ""
    tokens = scored_tokens(one.pieces[:kept], one.scored[:kept])
    return (
        f'<div class="lab-tune-example"><h4>{escape(one.source)} · {len(one.pieces):,} tokens</h4>{tokens}{cut}</div>'
    )


def _held_out(found) -> str:
    replayed = f", {found.replayed:,} replayed among them" if found.replayed else ""
    return f"{found.validation_examples:,} held out to validate on{replayed}"


def _spread(found) -> str:
    return ", ".join(f"{name} {length:,}" for name, length in found.spread.items())


def _beyond(found) -> str:
    """Empty where none is."""
    parts = [(found.cut, "cut"), (found.dropped, "dropped"), (found.refused, "too long")]
    return ", ".join(f"{number:,} {word}" for number, word in parts if number)


def _packing(found) -> str:
    if found.packing_saves <= 0:
        return ""
    return f"packing does away with {found.packing_saves:.0%} of what is computed without it"


def _memory(estimate) -> Markup:
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in estimate.memory.items() if size >= SEEN)
    fits = "fits" if estimate.fits else "does not fit"
    unknown = "" if estimate.is_whole else "; its activations cannot be counted beforehand"
    how = f"{parts}{unknown}; {gigabytes(estimate.memory_free)} are free on {estimate.device}"
    return _with(f"about {gigabytes(estimate.memory_total)}: {fits}", how)


def _largest(found) -> Markup | str:
    if not found.largest_batch:
        return "none"
    micro = found.estimate.micro_batch
    return _with(f"{found.largest_batch:,} examples at once", f"{micro:,} are asked for")


def _with(value: str, how: str) -> Markup:
    return Markup(f'{escape(value)} <small class="lab-train-how">{escape(how)}</small>' if how else escape(value))
