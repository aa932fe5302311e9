"""The global order of samples: a pure function of (seed, position).

Each epoch permutes the shards, groups them into windows of 16 shards and permutes the
samples inside each window.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np

# One integer, the position, is the complete state of a loader: positions continue
# without end, with epoch = position // samples, and the sample at any position is
# computed directly. Shards are not divided among the ranks, so shards of different
# sizes cannot make ranks diverge.
ORDER_VERSION = "philox-window16-1"
MIXTURE_VERSION = "philox-block-1"
WINDOW_SHARDS = 16
MAX_BLOCK = 4096  # maximum length of a mixture's block, in positions
_MIXTURE = 2**63 - 1  # Philox stream of mixtures; no window has this number


def permutation(seed: int, stream: tuple[int, int], length: int) -> np.ndarray:
    """Return a random permutation of range(length): int64 (length,).

    `stream`, two integers, selects one of many permutations with the same seed.
    """
    generator = np.random.Philox(key=seed % 2**64, counter=[0, 0, *stream])
    # Sorting raw output of Philox does not depend on the version of numpy.
    return np.argsort(generator.random_raw(length), kind="stable")


class Order:
    """Maps the positions of an endless stream to sample numbers.

    Each epoch of the stream contains every sample once. `shard_samples` is the number
    of samples of each shard; samples are numbered from 0 in the order of the shards.
    Raises ValueError if there are no samples.
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
        """Return the sample numbers at positions [start, stop), int64 (positions,)."""
        chunks = []
        while start < stop:
            window, window_start, window_stop = self._locate(start)
            end = min(stop, window_stop)
            chunks.append(window[start - window_start : end - window_start])
            start = end
        return np.concatenate(chunks) if chunks else np.empty(0, np.int64)

    def locate_window(self, position: int) -> tuple[int, int]:
        """Return the epoch and the index of the window of 16 shards at `position`."""
        epoch, offset = divmod(position, self.samples)
        return epoch, int(np.searchsorted(self._shards(epoch)[1], offset, side="right"))

    def shards_to_prefetch(self, position: int) -> list[int]:
        """Return the shard numbers to download for reading from `position` on."""
        epoch, index = self.locate_window(position)
        ends = self._shards(epoch)[1]
        following = (epoch, index + 1) if index + 1 < len(ends) else (epoch + 1, 0)
        windows = ((epoch, index), following)  # of 16 shards each
        return [shard for window in windows for shard in self._shards_of(*window).tolist()]

    def _shards_of(self, epoch: int, index: int) -> np.ndarray:
        return self._shards(epoch)[0][index * WINDOW_SHARDS : (index + 1) * WINDOW_SHARDS]

    def _locate(self, position: int) -> tuple[np.ndarray, int, int]:
        """Return the samples of the window at `position`, and its start and end."""
        epoch, index = self.locate_window(position)
        ends = self._shards(epoch)[1]
        start = int(ends[index - 1]) if index else 0
        base = epoch * self.samples
        return self._window(epoch, index), base + start, base + int(ends[index])

    def _make_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an epoch's shuffled shards, and the offset where each window ends."""
        shards = permutation(self.seed, (epoch, 0), len(self.counts))
        last = np.append(np.arange(WINDOW_SHARDS, len(shards), WINDOW_SHARDS), len(shards)) - 1
        return shards, np.cumsum(self.counts[shards])[last]

    def _make_window(self, epoch: int, index: int) -> np.ndarray:
        shards = self._shards_of(epoch, index)
        samples = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in shards])
        return samples[permutation(self.seed, (epoch, index + 1), len(samples))]


def apportion(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Divide a block of consecutive positions among mixed shard sets, by weight.

    Returns the number of positions of each shard set, at most `MAX_BLOCK` together.
    Raises ValueError if a shard set would get no position.
    """
    fractions = [weight / sum(weights) for weight in weights]
    # The smallest length that makes the counts exactly proportional to the weights. If
    # it is too long, each count is rounded by less than one position, by the method of
    # largest remainders.
    length = lcm(*(fraction.denominator for fraction in fractions))
    length = length if length <= MAX_BLOCK else MAX_BLOCK
    counts = [int(fraction * length) for fraction in fractions]
    remainders = sorted(
        range(len(fractions)), key=lambda part: (counts[part] - fractions[part] * length, part)
    )
    for part in remainders[: length - sum(counts)]:
        counts[part] += 1
    if 0 in counts:
        raise ValueError(f"a weight is less than 1/{MAX_BLOCK} of the sum of all weights")
    return tuple(counts)


class MixedOrder:
    """Mixes the endless orders of several shard sets into one, by weight.

    Samples are numbered through all shard sets, one set after another.
    """

    # In each block of positions, every part has exactly the number of positions that
    # `apportion` returns, in random order. Each part keeps its own order, so no sample
    # repeats within an epoch of its part.

    def __init__(self, parts: Sequence[Order], weights: Sequence[Fraction], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.counts = apportion(weights)
        self.first = np.cumsum([0, *(part.samples for part in parts)])
        self.slots = np.repeat(np.arange(len(parts)), self.counts)
        self._block = lru_cache(maxsize=4)(self._make_block)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return the sample numbers at positions [start, stop), int64 (positions,)."""
        chunks, length = [], len(self.slots)
        while start < stop:
            block, offset = divmod(start, length)
            end = min(stop, (block + 1) * length)
            chunks.append(self._block(block)[offset : offset + end - start])
            start = end
        return np.concatenate(chunks) if chunks else np.empty(0, np.int64)

    def position_of_part(self, part: int, position: int) -> int:
        """Return how many samples of a part come before the block of `position`."""
        # This is the part's own position at the start of the block.
        return position // len(self.slots) * self.counts[part]

    def _make_block(self, block: int) -> np.ndarray:
        which = self.slots[permutation(self.seed, (block, _MIXTURE), len(self.slots))]
        numbers = np.empty(len(which), np.int64)
        for number, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            numbers[which == number] = self.first[number] + part(block * count, (block + 1) * count)
        return numbers
