"""The global sample order: a pure function of (seed, position), so a loader's whole state is one integer.

Epoch e permutes the shards, takes windows of 16 of them, and permutes the samples inside each window; positions run
on without end, epoch = position // samples. No rank owns a shard, so uneven shards cannot make ranks disagree, and
any position is found without walking there. Permutations sort raw Philox words, so they do not change with numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np

ORDER_VERSION = "philox-window16-1"
MIXTURE_VERSION = "philox-block-1"
WINDOW_SHARDS = 16
MAX_BLOCK = 4096  # positions in which a mixture keeps its weights
_MIXTURE = 2**63 - 1  # the stream of draws of mixtures: no window has this number


def permutation(seed: int, stream: tuple[int, int], length: int) -> np.ndarray:
    """A permutation of range(length) that depends on nothing but `seed`, `stream` (two counters) and `length`."""
    generator = np.random.Philox(key=seed % 2**64, counter=[0, 0, *stream])
    return np.argsort(generator.random_raw(length), kind="stable")


class Order:
    """Which sample stands at each position of an endless stream.

    Args: `shard_samples`, how many samples each shard holds, in the manifest's order; `seed`.
    Samples are numbered 0..N-1 through the shards in that order.
    """

    def __init__(self, shard_samples: Sequence[int] | np.ndarray, seed: int) -> None:
        self.seed = seed
        self.counts = np.asarray(shard_samples, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.samples = int(self.starts[-1])
        if self.samples == 0:
            raise ValueError("no samples to order")
        self._window = lru_cache(maxsize=4)(self._make_window)
        self._shards = lru_cache(maxsize=2)(self._make_shards)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """The sample numbers at positions [start, stop): int64 (stop - start,)."""
        pieces = []
        while start < stop:
            window, window_start, window_stop = self._locate(start)
            end = min(stop, window_stop)
            pieces.append(window[start - window_start : end - window_start])
            start = end
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def window(self, position: int) -> tuple[int, int]:
        """The epoch, and which window of shards in it, that holds `position`."""
        epoch, offset = divmod(position, self.samples)
        return epoch, int(np.searchsorted(self._shards(epoch)[1], offset, side="right"))

    def upcoming(self, position: int) -> list[int]:
        """The numbers of the shards of the window at `position`, then of the window after it."""
        epoch, index = self.window(position)
        ends = self._shards(epoch)[1]
        then = (epoch, index + 1) if index + 1 < len(ends) else (epoch + 1, 0)
        return [
            shard for each in ((epoch, index), then) for shard in self._shards_of(*each).tolist()
        ]

    def _shards_of(self, epoch: int, index: int) -> np.ndarray:
        return self._shards(epoch)[0][index * WINDOW_SHARDS : (index + 1) * WINDOW_SHARDS]

    def _locate(self, position: int) -> tuple[np.ndarray, int, int]:
        """The permuted window that holds `position`, and the positions where it begins and ends."""
        epoch, index = self.window(position)
        ends = self._shards(epoch)[1]
        begin = int(ends[index - 1]) if index else 0
        base = epoch * self.samples
        return self._window(epoch, index), base + begin, base + int(ends[index])

    def _make_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's shard order, and the offset in the epoch at which each window of shards ends."""
        shards = permutation(self.seed, (epoch, 0), len(self.counts))
        last = np.append(np.arange(WINDOW_SHARDS, len(shards), WINDOW_SHARDS), len(shards)) - 1
        return shards, np.cumsum(self.counts[shards])[last]

    def _make_window(self, epoch: int, index: int) -> np.ndarray:
        shards = self._shards_of(epoch, index)
        samples = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in shards])
        return samples[permutation(self.seed, (epoch, index + 1), len(samples))]


def apportion(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """How many positions of a block each part has, in proportion to the weights.

    Exact where the weights' denominators allow a block of at most `MAX_BLOCK`; otherwise by largest remainders, off
    by less than one position in `MAX_BLOCK`. Raises `ValueError` for a weight too small for one position.
    """
    shares = [weight / sum(weights) for weight in weights]
    length = lcm(*(share.denominator for share in shares))
    length = length if length <= MAX_BLOCK else MAX_BLOCK
    counts = [int(share * length) for share in shares]
    remainders = sorted(
        range(len(shares)), key=lambda part: (counts[part] - shares[part] * length, part)
    )
    for part in remainders[: length - sum(counts)]:
        counts[part] += 1
    if 0 in counts:
        raise ValueError(f"a weight is less than a {MAX_BLOCK}th of all")
    return tuple(counts)


class MixedOrder:
    """Several endless streams in one: each block of positions holds each part's exact share, in a random order.

    Args: `parts`, the streams; `weights`; `seed`. Sample numbers of part k come after all those of the parts before.
    A part runs through its own order, so within its epochs it repeats nothing.
    """

    def __init__(self, parts: Sequence[Order], weights: Sequence[Fraction], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.counts = apportion(weights)
        self.first = np.cumsum([0, *(part.samples for part in parts)])
        self.slots = np.repeat(np.arange(len(parts)), self.counts)
        self._block = lru_cache(maxsize=4)(self._make_block)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """The sample numbers at positions [start, stop): int64 (stop - start,)."""
        pieces, length = [], len(self.slots)
        while start < stop:
            block, offset = divmod(start, length)
            end = min(stop, (block + 1) * length)
            pieces.append(self._block(block)[offset : offset + end - start])
            start = end
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def position_of_part(self, part: int, position: int) -> int:
        """About where part number `part` is in its own stream at `position`: at the begin of the block."""
        return position // len(self.slots) * self.counts[part]

    def _make_block(self, block: int) -> np.ndarray:
        which = self.slots[permutation(self.seed, (block, _MIXTURE), len(self.slots))]
        numbers = np.empty(len(which), np.int64)
        for number, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            numbers[which == number] = self.first[number] + part(block * count, (block + 1) * count)
        return numbers
