"""Examples of different lengths side by side in rows of one context: little padding, none cut.

Uses numpy; nothing of ours.
"""

from bisect import bisect_left, insort

import numpy as np


def pack(lengths: np.ndarray, context: int) -> list[np.ndarray]:
    """Bins of example numbers, no bin longer than `context` tokens: best fit, longest first (arXiv:2404.10830).

    The same lengths give the same bins. In each bin the longest example is first; bins are in the order in which they
    were opened.

    Args:
        lengths: (E,) tokens of each example.

    Raises:
        ValueError: for an example that is longer than the context, or has no tokens.
    """
    lengths = np.asarray(lengths)
    wrong = np.flatnonzero((lengths > context) | (lengths < 1))
    if len(wrong):
        raise ValueError(
            f"example {wrong[0]} has {lengths[wrong[0]]:,} tokens: a row of {context:,} holds examples of 1 to "
            f"{context:,} tokens"
        )
    bins: list[list[int]] = []
    room: dict[int, list[int]] = {}  # free tokens -> bins with exactly so many, last opened last
    spaces: list[int] = []  # the keys of `room`, sorted: at most `context` of them, however many bins there are
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        place = bisect_left(spaces, length)  # the least room that is enough
        if place == len(spaces):
            bins.append([])
            number, space = len(bins) - 1, context
        else:
            space = spaces[place]
            number = room[space].pop()
            if not room[space]:
                del room[space], spaces[place]
        bins[number].append(i)
        left = space - length
        if left and left not in room:
            room[left] = []
            insort(spaces, left)
        if left:
            room[left].append(number)
    return [np.array(numbers, dtype=np.int64) for numbers in bins]
