"""Training data from one shard set, or from several mixed by weight.

--shards photos-256                             one shard set
--shards photos-256:0.7 --shards paintings:0.3  exactly 7 samples of the first per 3
                                                samples of the second
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shards.errors import UserError
from shards.read.cache import Cache
from shards.read.dataset import DamagedSampleError, Split
from shards.read.order import MIXTURE_VERSION, MixedOrder, apportion

# Maps positions [start, stop) of an endless stream to sample numbers: int64
# (positions,).
SampleOrder = Callable[[int, int], np.ndarray]


class Samples(Protocol):
    """The interface of training data: a `Split`, or a `Mixture` of several splits."""

    @property
    def dataset_id(self) -> str: ...

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def order(self, seed: int) -> SampleOrder: ...

    def prefetch(self, order: Any, position: int) -> None: ...

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray: ...


def evenly_spaced(samples: Samples, most: int) -> Iterator[np.ndarray]:
    """Yield at most `most` samples from evenly spaced places of a data set.

    Each sample is (3, size, size), uint8 or float16. Damaged samples are skipped with a
    warning.
    """
    numbers = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    for number in np.unique(numbers).tolist():
        try:
            pixels = samples.read([number])[0]
        except DamagedSampleError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
        else:
            yield pixels


class Mixture:
    """Several splits mixed by weight, as training data.

    Samples are numbered consecutively, split after split. Raises UserError if the
    splits differ in size or dtype, or if a weight is less than about 1/4096 of all
    weights together.
    """

    def __init__(self, parts: Sequence[Split], weights: Sequence[Fraction]) -> None:
        self.parts, self.weights = tuple(parts), tuple(weights)
        self.first = np.cumsum([0, *(len(part) for part in parts)])
        for part in self.parts[1:]:
            one, other = ((each.size, each.manifest.dtype) for each in (self.parts[0], part))
            if one != other:
                raise UserError(
                    f"{self.parts[0].root} has {one[0]} px {one[1]}, {part.root} {other[0]} px "
                    f"{other[1]}: mixed shard sets must have the same size and dtype: "
                    "build one of them again"
                )
        try:
            apportion(self.weights)
        except ValueError as error:
            raise UserError(f"--shards: {error}: increase it or remove that shard set") from None

    @property
    def dataset_id(self) -> str:
        """16 hexadecimal digits that identify these shard sets and weights."""
        parts = [
            [part.dataset_id, str(weight)]
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return hashlib.sha256(json.dumps([MIXTURE_VERSION, parts]).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Height and width of every sample, in pixels."""
        return self.parts[0].size

    def __len__(self) -> int:
        return int(self.first[-1])

    def order(self, seed: int) -> MixedOrder:
        """Return the endless order in which training with `seed` reads the samples."""
        return MixedOrder([part.order(seed) for part in self.parts], self.weights, seed)

    def prefetch(self, order: MixedOrder, position: int) -> None:
        """Start downloading the shards of the samples at `position` and after it."""
        for number, part in enumerate(self.parts):
            part.prefetch(order.parts[number], order.position_of_part(number, position))

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy the stored pixels of `samples` into one contiguous array, or into `out`.

        Returns (samples, 3, size, size), uint8 or float16. Raises DamagedSampleError if
        a sample is damaged or missing.
        """
        numbers = np.asarray(
            samples if isinstance(samples, np.ndarray) else list(samples), np.int64
        )
        out = self.parts[0].empty(len(numbers)) if out is None else out
        which = np.searchsorted(self.first, numbers, side="right") - 1
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(which == number)
            part.read_rows(numbers[rows] - self.first[number], out, rows.tolist())
        return out


def parse_shards(text: str) -> tuple[str, Fraction | None]:
    """Parse a value of --shards, `DIR` or `DIR:WEIGHT`, into (DIR, weight or None).

    Raises UserError if the weight is not above 0.
    """
    location, colon, last = text.rpartition(":")
    if "://" in text and "/" not in text.split("://", 1)[1]:
        return text, None  # what follows the colon is the port
    try:
        weight = Fraction(last)
    except (ValueError, ZeroDivisionError):
        return text, None
    if not colon or Path(text).is_dir():
        return text, None
    if weight <= 0:
        raise UserError(f"--shards {text}: the weight must be above 0")
    return location, weight


def open_training(
    shards: str | Path | Sequence[str], split: str | None = None, cache: Cache | None = None
) -> Split | Mixture:
    """Open the shard sets in `shards`, the values `DIR` or `DIR:WEIGHT` of --shards.

    `split` is the name of the split of each; by default it is "train", or the only one.
    Returns a `Split` for one value and a `Mixture` for several. Without weights, each
    shard set is weighted by its number of samples. Raises UserError if only some have a
    weight, or a shard set cannot be opened.
    """
    shards = [str(shards)] if isinstance(shards, str | Path) else shards
    parsed = [parse_shards(text) for text in shards]
    parts = [Split(location, split, cache=cache) for location, _ in parsed]
    for part in parts if split else ():
        part.manifest.check_split(split or "", part.root)
    if len(parts) == 1:
        return parts[0]
    weights = [weight for _, weight in parsed if weight is not None]
    if weights and len(weights) < len(parsed):
        raise UserError(
            f"--shards {' '.join(shards)}: give every shard set a weight (DIR:0.7), or none"
        )
    return Mixture(parts, weights or [Fraction(len(part)) for part in parts])


class SubstitutingReader:
    """Reads the samples at consecutive positions and replaces damaged ones.

    `stream` maps positions to sample numbers. `on_warning` is called once per damaged
    sample, and more than `limit` of them raise UserError. `substituted` counts the
    replaced samples. Threads may share a reader.
    """

    def __init__(
        self, samples: Samples, stream: SampleOrder, limit: int, on_warning: Callable[[str], None]
    ) -> None:
        self.samples, self.stream, self.on_warning = samples, stream, on_warning
        self.limit = min(limit, len(samples) - 1)  # at least one sample must be intact
        self.damaged: frozenset[int] = frozenset()
        self.substituted = 0
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the stored pixels of the samples at positions [start, stop).

        The array is (stop - start, 3, size, size), uint8 or float16. Raises UserError
        if more than `limit` samples are damaged.
        """
        requested = self.stream(start, stop)
        while True:
            numbers = self._substitute(requested, start)
            try:
                pixels = self.samples.read(numbers)
            except DamagedSampleError as error:
                self._add_damaged(int(numbers[error.row]), error)
            else:
                with self._lock:
                    self.substituted += int((numbers != requested).sum())
                return pixels

    def _add_damaged(self, sample: int, error: DamagedSampleError) -> None:
        with self._lock:
            if sample in self.damaged:
                return
            self.damaged |= {sample}
            if len(self.damaged) > self.limit:
                raise UserError(
                    f"more than {self.limit} damaged samples (--corrupt-limit), the last: {error}"
                ) from None
            self.on_warning(f"replaced a damaged sample with another one: {error}")

    def _substitute(self, requested: np.ndarray, start: int) -> np.ndarray:
        """Return a copy of `requested` with intact samples in place of damaged ones."""
        numbers, damaged = requested.copy(), self.damaged
        for row in np.flatnonzero(np.isin(requested, list(damaged))).tolist() if damaged else []:
            # By the first intact sample at a later position. This depends only on the
            # stream and on which samples are damaged, so all ranks and resumed runs
            # read the same samples.
            position = start + row
            while int(numbers[row]) in damaged:
                position += 1
                numbers[row] = self.stream(position, position + 1)[0]
        return numbers
