"""Training batches: the global order sliced by rank, read ahead by threads, scaled and cropped on the device.

The whole state is one integer, the images consumed so far; what is prefetched but not consumed does not count.
Threads read, not processes: copying from a mapped file holds no Python lock worth the name, and nothing is pickled.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import Batch, Codec, encode_stored, stored_to_lab
from shards.errors import UserError
from shards.inspect.statistics import color_sums
from shards.read.mixture import Samples, SubstitutingReader, evenly_spaced

_AHEAD = 3  # batches read before they are asked for, more than there are threads
_ROOMS = 32  # tensors that are kept to be used again
_FLIP, _MIX, _SIDE, _LEFT, _TOP = range(5)  # streams of draws


_Item = tuple[
    Tensor, Tensor, Tensor
]  # stored (mirrored already, unless it is to be cropped), affine maps, mix


def uniforms(seed: int, positions: np.ndarray, stream: int) -> np.ndarray:
    """One draw in [0, 1) for each position of the endless stream: float64, a function of its arguments alone."""
    seed = (seed + stream * 0x632BE59BD9B4E019) % 2**64
    with np.errstate(
        over="ignore"
    ):  # splitmix64 (Steele, Lea, Flood 2014): a counter-based draw per position
        z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
            seed
        ) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def flips(seed: int, positions: np.ndarray, probability: float) -> np.ndarray:
    """Which positions of the endless stream are mirrored: bool."""
    return uniforms(seed, positions, _FLIP) < probability


def affine_maps(seed: int, positions: np.ndarray, flip: float, crop: float) -> np.ndarray:
    """How each picture is cropped and mirrored: float32 (B, 2, 3), a map of output to input places in [-1, 1].

    A square of side in [crop, 1] of the picture, anywhere inside it, becomes the whole picture.
    """
    side = 1 - (1 - crop) * uniforms(seed, positions, _SIDE)
    left, top = (
        (1 - side) * (2 * uniforms(seed, positions, stream) - 1) for stream in (_LEFT, _TOP)
    )
    maps = np.zeros((len(positions), 2, 3), np.float32)
    maps[:, 0, 0] = np.where(flips(seed, positions, flip), -side, side)
    maps[:, 1, 1] = side
    maps[:, 0, 2], maps[:, 1, 2] = left, top
    return maps


def cropped(lab: Tensor, maps: Tensor) -> Tensor:
    """Lab (B, 3, H, W), cropped and mirrored as the maps say, bilinear."""
    grid = F.affine_grid(maps, list(lab.shape), align_corners=False)
    return F.grid_sample(lab, grid, mode="bilinear", padding_mode="border", align_corners=False)


def check_divides(batch_size: int, world: int) -> None:
    """Raise `UserError` unless every process gets an equal share of a global batch."""
    if batch_size % world:
        divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise UserError(
            f"batch_size={batch_size} does not divide among {world} processes; use one of {divisors}"
        )


def ab_histogram(split: Samples, most: int = 20_000) -> np.ndarray:
    """Share of pixels in each ab bin, float64 (23, 23): `python -m shards statistics`' own bins, a along the rows.

    Counts the split's samples, at most `most` of them, evenly spaced.
    """
    counts = sum(color_sums(stored).counts for stored in evenly_spaced(split, most))
    return counts / np.sum(counts)


def _holders(arrays: list[np.ndarray], place: int) -> int:
    return sys.getrefcount(arrays[place])


_NOBODY = _holders(
    [np.empty(0)], 0
)  # measured, since Python's versions count their own way; a tensor makes it one more


class BufferPool:
    """Float32 tensors to write batches into, used again once nobody holds them: called with a shape.

    Fresh memory of this size costs a page fault for every 4 KB, which takes as long as the arithmetic.
    """

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.taking = threading.Lock()

    def __call__(self, *shape: int) -> Tensor:
        with self.taking:
            for place in range(
                len(self.arrays)
            ):  # a name for an array would count as one who holds it
                if self.arrays[place].shape == shape and _holders(self.arrays, place) == _NOBODY:
                    return torch.from_numpy(self.arrays[place])
            array = np.empty(shape, np.float32)
            self.arrays = [*self.arrays, array][-_ROOMS:]
            return torch.from_numpy(array)


class Loader:
    """Endless batches of one rank: of global batch k, positions [kB, (k + 1)B), its contiguous slice.

    `batch_size` is global and must be divisible by `world`. `workers` threads read ahead, 0 reads when asked; batches
    are the same for any number. Damaged samples raise `DamagedSampleError`, unless up to `max_damaged` of them may be replaced
    (see `SubstitutingReader`); `on_warning` hears of each. `waited` sums the seconds the training loop stood still.
    """

    def __init__(
        self,
        samples: Samples,
        codec: Codec,
        *,
        batch_size: int,
        seed: int,
        flip: float,
        crop: float = 1.0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 1,
        max_damaged: int = 0,
        on_warning: Callable[[str], None] = print,
    ) -> None:
        check_divides(batch_size, world)
        self.samples, self.codec, self.seed, self.flip, self.crop = samples, codec, seed, flip, crop
        self.batch_size, self.rank, self.share = batch_size, rank, batch_size // world
        self.device, self.workers = torch.device(device), workers
        self.order = samples.order(seed)
        self.substitute = (
            SubstitutingReader(samples, self.order, max_damaged, on_warning)
            if max_damaged
            else None
        )
        self.waited = 0.0
        self._pool = BufferPool()

    @property
    def substituted(self) -> int:
        """How many positions this rank has read whose sample is damaged, and got another."""
        return self.substitute.substituted if self.substitute else 0

    def batches(self, images: int = 0) -> Generator[Batch, None, None]:
        """Batches from the point where `images` have been consumed, without end."""
        items = self._read_ahead(images) if self.workers else self._read_when_asked(images)
        try:
            while True:
                began = time.perf_counter()
                item = next(items)
                self.waited += time.perf_counter() - began
                yield item if isinstance(item, Batch) else self._to_device(*item)
        finally:
            items.close()

    def _read_when_asked(self, start: int) -> Generator[_Item | Batch, None, None]:
        while True:
            yield self._read(start)
            start += self.batch_size

    def _read_ahead(self, start: int) -> Generator[_Item | Batch, None, None]:
        pool = ThreadPoolExecutor(self.workers, "loader")
        ahead: deque[Future[_Item | Batch]] = deque()
        try:
            while True:
                while len(ahead) < self.workers + _AHEAD:
                    ahead.append(pool.submit(self._read, start))
                    start += self.batch_size
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, start: int) -> _Item | Batch:
        """This rank's share of the global batch that begins at position `start`; ready for use on a CPU."""
        first = start + self.rank * self.share
        positions = np.arange(first, first + self.share)
        stored = torch.from_numpy(self._pixels(first, first + self.share))
        if self.crop == 1:  # else one map does both
            for row in np.flatnonzero(flips(self.seed, positions, self.flip)):
                stored[row] = stored[row].flip(-1)
        if self.device.type == "cuda":
            stored = stored.pin_memory()
        maps = affine_maps(self.seed, positions, self.flip, self.crop)
        item = (
            stored,
            torch.from_numpy(maps),
            torch.from_numpy(uniforms(self.seed, positions, _MIX)),
        )
        return self._to_device(*item) if self.device.type == "cpu" else item

    def _pixels(self, start: int, stop: int) -> np.ndarray:
        self.samples.prefetch(self.order, start)
        if self.substitute:
            return self.substitute.read(start, stop)
        return self.samples.read(self.order(start, stop))

    def _to_device(self, stored: Tensor, maps: Tensor, mix: Tensor) -> Batch:
        stored, maps = (tensor.to(self.device, non_blocking=True) for tensor in (stored, maps))
        if self.crop < 1:
            L, colour = self.codec.encode(cropped(stored_to_lab(stored), maps))
        else:
            L, colour = encode_stored(self.codec, stored, self._pool)
        return Batch(L, colour, mix.to(self.device, L.dtype, non_blocking=True).view(-1, 1, 1, 1))
