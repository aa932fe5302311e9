"""Tests of order: permutations, random access, exact mixtures, and a golden hash."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.read.order import (
    MAX_BLOCK,
    ORDER_VERSION,
    WINDOW_SHARDS,
    MixedOrder,
    Order,
    apportion,
    permutation,
)

WEIGHTS = st.lists(
    st.fractions(min_value=Fraction(1, 12), max_value=5, max_denominator=12), min_size=1, max_size=4
)


PART_COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=6)
SHARD_COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=50).filter(
    lambda shards: sum(shards) > 0
)


@given(SHARD_COUNTS, st.integers(0, 2**63), st.integers(0, 3))
def test_every_epoch_is_a_permutation(shards: list[int], seed: int, epoch: int) -> None:
    order = Order(shards, seed)
    n = order.samples
    assert sorted(order(epoch * n, (epoch + 1) * n)) == list(range(n))


@given(SHARD_COUNTS, st.integers(0, 1000), st.data())
def test_any_slice_of_the_stream_is_the_same(
    shards: list[int], seed: int, data: st.DataObject
) -> None:
    order = Order(shards, seed)
    stream = order(0, 3 * order.samples)
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    np.testing.assert_array_equal(Order(shards, seed)(start, stop), stream[start:stop])


def test_epochs_and_seeds_differ() -> None:
    order = Order([50, 50], seed=1)
    assert order(0, 100).tolist() != order(100, 200).tolist()
    assert order(0, 100).tolist() != Order([50, 50], seed=2)(0, 100).tolist()


def test_window_mixes_its_own_shards_only() -> None:
    order = Order([10] * (2 * WINDOW_SHARDS), seed=3)
    window = order(0, 10 * WINDOW_SHARDS)
    shards = set((window // 10).tolist())
    assert len(shards) == WINDOW_SHARDS
    assert len(set((window[:20] // 10).tolist())) > 5  # many shards already at its start


def test_permutations_are_uniform() -> None:
    """Each of 4 values is first in 1,000 of 4,000 permutations (within 5 sigma)."""
    first = np.bincount([permutation(7, (epoch, 0), 4)[0] for epoch in range(4000)], minlength=4)
    assert np.abs(first - 1000).max() < 137


def test_golden_hash() -> None:
    """If this hash changes, so does the order for all seeds: raise ORDER_VERSION."""
    stream = Order([7, 0, 13, 5] * 9, seed=42)(0, 600).astype("<i8").tobytes()
    assert ORDER_VERSION == "philox-window16-1"
    assert (
        hashlib.sha256(stream).hexdigest()
        == "861cbb99d2f392346c3e8a182df24ae086d5515bce06f91481664901d289577c"
    )


@settings(deadline=None)
@given(WEIGHTS, st.data(), st.integers(0, 2**63))
def test_every_block_has_the_counts_of_apportion(
    weights: list[Fraction], data: st.DataObject, seed: int
) -> None:
    parts = [Order(data.draw(PART_COUNTS), seed) for _ in weights]
    counts = apportion(weights)
    order, length = MixedOrder(parts, weights, seed), sum(counts)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - weight / sum(weights) * length) < 1
        assert length == MAX_BLOCK or count == weight / sum(weights) * length
    block = data.draw(st.integers(0, 5))
    numbers = order(block * length, (block + 1) * length)
    parts_of = np.searchsorted(order.first, numbers, side="right") - 1
    assert np.bincount(parts_of, minlength=len(parts)).tolist() == list(counts)


@settings(deadline=None)
@given(WEIGHTS, st.data(), st.integers(0, 2**63))
def test_each_part_keeps_its_own_order(
    weights: list[Fraction], data: st.DataObject, seed: int
) -> None:
    parts = [Order(data.draw(PART_COUNTS), seed) for _ in weights]
    order, total = MixedOrder(parts, weights, seed), 3 * sum(apportion(weights))
    stop = data.draw(st.integers(0, total))
    numbers = order(0, stop)
    for index, part in enumerate(parts):
        first, end = order.first[index], order.first[index + 1]
        own = numbers[(numbers >= first) & (numbers < end)] - first
        np.testing.assert_array_equal(own, part(0, len(own)))
    start = data.draw(st.integers(0, stop))
    np.testing.assert_array_equal(MixedOrder(parts, weights, seed)(start, stop), numbers[start:])


def test_parts_are_spread_randomly_within_blocks() -> None:
    order = MixedOrder([Order([1000], 0), Order([1000], 0)], [Fraction(1), Fraction(1023)], 1)
    gaps = np.diff(np.flatnonzero(order(0, 1024 * 50) < 1000))
    assert len(gaps) == 49
    assert gaps.std() > 200  # one per block of 1,024, at a random position
