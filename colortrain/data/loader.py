"""Training batches: each rank's slice of the sample order, read ahead by threads."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import Batch, Codec, encode_stored, stored_to_lab
from shards.errors import UserError
from shards.inspect.statistics import color_sums
from shards.read.mixture import Samples, SubstitutingReader, evenly_spaced

_READ_AHEAD = 3  # batches submitted in advance, in addition to one per thread
_POOL_SIZE = 32  # tensors that a buffer pool keeps for reuse
_FLIP, _MIX, _SIDE, _LEFT, _TOP = range(5)  # independent streams of random draws

# Stored samples (already flipped, unless they will be cropped), augmentation matrices,
# and the draws `mix`.
_Item = tuple[Tensor, Tensor, Tensor]


def uniform_draws(seed: int, positions: np.ndarray, stream: int) -> np.ndarray:
    """Return one pseudo-random number in [0, 1) for each position of the sample order.

    positions: (B,) integers. The result is (B,) float64. Different values of `stream`
    give independent numbers. The generator is splitmix64 (Steele, Lea and Flood 2014).
    """
    seed = (seed + stream * 0x632BE59BD9B4E019) % 2**64
    with np.errstate(over="ignore"):
        # the generator's key is the position, so any rank can draw any image's numbers
        z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def flips(seed: int, positions: np.ndarray, probability: float) -> np.ndarray:
    """Return for each position of the sample order whether its image is flipped.

    Flips are horizontal. positions: (B,) integers. The result is (B,) bool.
    """
    return uniform_draws(seed, positions, _FLIP) < probability


def augmentation_matrices(seed: int, positions: np.ndarray, flip: float, crop: float) -> np.ndarray:
    """Return the affine matrices of random crops and horizontal flips.

    positions: (B,) integers, indices into the sample order. `flip` is the probability
    of a flip; `crop` is the smallest side of a crop, as a fraction of the image's side.
    The result is (B, 2, 3) float32, for `F.affine_grid`.
    """
    side = 1 - (1 - crop) * uniform_draws(seed, positions, _SIDE)
    left, top = (
        (1 - side) * (2 * uniform_draws(seed, positions, stream) - 1) for stream in (_LEFT, _TOP)
    )
    # These map output to input coordinates in [-1, 1]: the crop, a random square, is
    # enlarged to the size of the image.
    maps = np.zeros((len(positions), 2, 3), np.float32)
    maps[:, 0, 0] = np.where(flips(seed, positions, flip), -side, side)
    maps[:, 1, 1] = side
    maps[:, 0, 2], maps[:, 1, 2] = left, top
    return maps


def crop_and_flip(lab: Tensor, maps: Tensor) -> Tensor:
    """Crop and flip images by affine matrices, with bilinear interpolation.

    lab: (B, 3, H, W) in CIELAB units, like the result. maps: (B, 2, 3), from
    `augmentation_matrices`.
    """
    grid = F.affine_grid(maps, list(lab.shape), align_corners=False)
    return F.grid_sample(lab, grid, mode="bilinear", padding_mode="border", align_corners=False)


def check_divides(batch_size: int, world: int) -> None:
    """Raise UserError unless a global batch divides evenly among `world` processes."""
    if batch_size % world:
        divisors = [n for n in range(1, min(batch_size, 1024) + 1) if batch_size % n == 0]
        raise UserError(
            f"batch_size={batch_size} does not divide among {world} processes; "
            f"use one of {divisors} processes, or change batch_size"
        )


def ab_histogram(split: Samples, max_samples: int = 20_000) -> np.ndarray:
    """Return the fraction of a split's pixels in each bin of the (a, b) plane.

    The result is (23, 23) float64, with a along the rows, in bins 10 CIELAB units wide.
    At most `max_samples` samples, evenly spaced, are counted.
    """
    # the same bins as in `colortrain shards statistics`
    counts = sum(color_sums(stored).counts for stored in evenly_spaced(split, max_samples))
    return counts / np.sum(counts)


def _reference_count(arrays: list[np.ndarray], index: int) -> int:
    return sys.getrefcount(arrays[index])


# The reference count of an array that only a list refers to. It is measured, because
# it differs between Python versions; a tensor on the array's memory adds one.
_UNUSED = _reference_count([np.empty(0)], 0)


class BufferPool:
    """Allocates float32 tensors, and reuses the memory of unreferenced ones.

    Threads may share a pool.
    """

    # Fresh memory costs one page fault per 4 KB. For a whole batch, that takes as long
    # as the arithmetic.
    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __call__(self, *shape: int) -> Tensor:
        """Return a float32 CPU tensor of this shape, with undefined contents."""
        with self._lock:
            for i in range(len(self.arrays)):  # a loop variable would count as a reference
                if self.arrays[i].shape == shape and _reference_count(self.arrays, i) == _UNUSED:
                    return torch.from_numpy(self.arrays[i])
            array = np.empty(shape, np.float32)
            self.arrays = [*self.arrays, array][-_POOL_SIZE:]
            return torch.from_numpy(array)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Options of a loader: what it yields, for which rank, and how it reads."""

    batch_size: int  # global: over all processes
    seed: int  # of the sample order, flips and crops
    flip: float  # probability of a horizontal flip
    crop: float = 1.0  # smallest side of a random crop / side of the image; 1: no crop
    rank: int = 0
    world: int = 1  # number of processes; must divide batch_size
    device: torch.device | str = "cpu"
    workers: int = 1  # threads that read ahead; 0 reads in the calling thread
    max_damaged: int = 0  # number of damaged samples that may be replaced before an error

    @property
    def local_batch_size(self) -> int:
        """Number of images of each global batch that one rank gets."""
        return self.batch_size // self.world


class Loader:
    """Yields the training batches of one rank, without end.

    Up to `config.max_damaged` damaged samples are replaced, each with a call of
    `on_warning`; the next one raises UserError. `waited` is the total time in seconds
    that the training loop waited for batches.
    """

    def __init__(
        self,
        samples: Samples,
        codec: Codec,
        config: LoaderConfig,
        on_warning: Callable[[str], None] = print,
    ) -> None:
        check_divides(config.batch_size, config.world)
        self.samples, self.codec, self.config = samples, codec, config
        self.device = torch.device(config.device)
        self.order = samples.order(config.seed)
        self.substituting_reader = (
            SubstitutingReader(samples, self.order, config.max_damaged, on_warning)
            if config.max_damaged
            else None
        )
        self.waited = 0.0
        self._pool = BufferPool()

    @property
    def num_damaged(self) -> int:
        """Number of damaged samples that were replaced in this rank's batches."""
        return self.substituting_reader.substituted if self.substituting_reader else 0

    def batches(self, images: int = 0) -> Generator[Batch, None, None]:
        """Yield batches without end for a run that has consumed `images` images."""
        read = self._read_ahead if self.config.workers else self._read_synchronously
        items = read(images)
        try:
            while True:
                started = time.perf_counter()
                item = next(items)
                self.waited += time.perf_counter() - started
                yield item if isinstance(item, Batch) else self._to_device(*item)
        finally:
            items.close()

    def _read_synchronously(self, start: int) -> Generator[_Item | Batch, None, None]:
        while True:
            yield self._read(start)
            start += self.config.batch_size

    def _read_ahead(self, start: int) -> Generator[_Item | Batch, None, None]:
        # Threads, not processes: reading from a file hardly holds the GIL, and nothing
        # has to be pickled. Batches that were read ahead but not consumed are no part
        # of a run's state; the batches are the same for any number of threads.
        pool = ThreadPoolExecutor(self.config.workers, "loader")
        pending: deque[Future[_Item | Batch]] = deque()
        try:
            while True:
                while len(pending) < self.config.workers + _READ_AHEAD:
                    pending.append(pool.submit(self._read, start))
                    start += self.config.batch_size
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, start: int) -> _Item | Batch:
        """Read this rank's slice of the global batch that begins at `start`."""
        config = self.config
        # With global batch size B, global batch k holds positions kB to (k + 1)B - 1.
        first = start + config.rank * config.local_batch_size
        positions = np.arange(first, first + config.local_batch_size)
        stored = torch.from_numpy(self._pixels(first, first + config.local_batch_size))
        if config.crop == 1:  # with a crop, the matrix flips as well
            for row in np.flatnonzero(flips(config.seed, positions, config.flip)):
                stored[row] = stored[row].flip(-1)
        maps = augmentation_matrices(config.seed, positions, config.flip, config.crop)
        mix = uniform_draws(config.seed, positions, _MIX)
        item = (stored, torch.from_numpy(maps), torch.from_numpy(mix))
        if self.device.type == "cpu":
            return self._to_device(*item)
        # The training loop's thread calls `_to_device`, whose asynchronous copies need
        # pinned memory.
        return item[0].pin_memory(), item[1].pin_memory(), item[2].pin_memory()

    def _pixels(self, start: int, stop: int) -> np.ndarray:
        self.samples.prefetch(self.order, start)
        if self.substituting_reader:
            return self.substituting_reader.read(start, stop)
        return self.samples.read(self.order(start, stop))

    def _to_device(self, stored: Tensor, maps: Tensor, mix: Tensor) -> Batch:
        stored, maps = (tensor.to(self.device, non_blocking=True) for tensor in (stored, maps))
        if self.config.crop < 1:
            L, colour = self.codec.encode(crop_and_flip(stored_to_lab(stored), maps))
        else:
            L, colour = encode_stored(self.codec, stored, self._pool)
        return Batch(L, colour, mix.to(self.device, L.dtype, non_blocking=True).view(-1, 1, 1, 1))
