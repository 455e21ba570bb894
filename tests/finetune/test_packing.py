"""Bins of examples: none over the context, all there once, few of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.packing import pack


def first_fit(lengths: list[int], context: int) -> list[list[int]]:
    """Each example into the first bin that has room, in the order given."""
    bins, free = [], []
    for i, length in enumerate(lengths):
        place = next((k for k, room in enumerate(free) if room >= length), None)
        if place is None:
            bins.append([])
            free.append(context)
            place = len(bins) - 1
        bins[place].append(i)
        free[place] -= length
    return bins


def best_fit_decreasing(lengths: list[int], context: int) -> int:
    """How many bins there are when every length goes where the least room is left, by looking at all of them."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [k for k, room in enumerate(free) if room >= length]
        if fitting:
            free[min(fitting, key=lambda k: free[k])] -= length
        else:
            free.append(context - length)
    return len(free)


@given(st.integers(1, 40).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
def test_bins_are_whole_and_as_few_as_by_looking_at_all(case):
    context, lengths = case
    bins = pack(np.array(lengths, dtype=np.int64), context)
    assert sorted(i for one in bins for i in one.tolist()) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= context for one in bins)
    assert len(bins) == best_fit_decreasing(lengths, context)
    again = pack(np.array(lengths, dtype=np.int64), context)
    assert all(np.array_equal(a, b) for a, b in zip(bins, again, strict=True))


def test_fewer_bins_than_in_the_order_given():
    lengths = np.random.default_rng(0).integers(20, 400, size=5_000)
    bins = pack(lengths, 512)
    assert len(bins) < len(first_fit(lengths.tolist(), 512))
    assert len(bins) * 512 < 1.01 * lengths.sum()  # almost no padding


def test_by_hand():
    bins = pack(np.array([3, 7, 5, 2, 10, 3]), 10)
    assert [one.tolist() for one in bins] == [[4], [1, 0], [2, 5, 3]]
    assert pack(np.array([], dtype=np.int64), 10) == []


def test_what_fits_in_no_bin_is_refused():
    with pytest.raises(ValueError, match="example 1 has 11 tokens: a row of 10 holds"):
        pack(np.array([3, 11]), 10)
    with pytest.raises(ValueError, match="example 0 has 0 tokens"):
        pack(np.array([0]), 10)
