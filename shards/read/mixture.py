"""Shard sets to learn from: one, or several mixed by weight, behind the same few words.

--shards photos-256                              one set
--shards photos-256:0.7 --shards paintings:0.3   seven samples of one for three of the other, exactly
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

Stream = Callable[
    [int, int], np.ndarray
]  # positions [start, stop) of an endless stream to sample numbers


class Samples(Protocol):
    """What can be learnt from: a `Split`, or a `Mixture` of some."""

    @property
    def dataset_id(self) -> str: ...

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def order(self, seed: int) -> Stream: ...

    def prefetch(self, order: Any, position: int) -> None: ...

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray: ...


def evenly_spaced(samples: Samples, most: int) -> Iterator[np.ndarray]:
    """At most `most` samples, one by one, for counting colours; damaged ones are left out with a warning."""
    for number in np.unique(
        np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    ).tolist():
        try:
            pixels = samples.read([number])[0]
        except DamagedSampleError as damage:
            warnings.warn(f"not counted: {damage}", stacklevel=2)
        else:
            yield pixels


class Mixture:
    """Several splits mixed by weight: samples are numbered through them in turn, an epoch is as long as all together.

    Raises `UserError` if their pictures differ in size or type, or a weight is too small to matter.
    """

    def __init__(self, parts: Sequence[Split], weights: Sequence[Fraction]) -> None:
        self.parts, self.weights = tuple(parts), tuple(weights)
        self.first = np.cumsum([0, *(len(part) for part in parts)])
        for part in self.parts[1:]:
            one, other = ((each.size, each.manifest.dtype) for each in (self.parts[0], part))
            if one != other:
                raise UserError(
                    f"{self.parts[0].root} holds {one[0]} px {one[1]}, {part.root} {other[0]} px {other[1]}: "
                    "sets that are mixed must be alike, build one of them again"
                )
        try:
            apportion(self.weights)
        except ValueError as error:
            raise UserError(f"--shards: {error}; leave that set out, or give it more") from None

    @property
    def dataset_id(self) -> str:
        """Sixteen hexadecimal digits that name these sets with these weights."""
        parts = [
            [part.dataset_id, str(weight)]
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return hashlib.sha256(json.dumps([MIXTURE_VERSION, parts]).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        return self.parts[0].size

    def __len__(self) -> int:
        return int(self.first[-1])

    def order(self, seed: int) -> MixedOrder:
        """The endless stream that training with `seed` sees."""
        return MixedOrder([part.order(seed) for part in self.parts], self.weights, seed)

    def prefetch(self, order: MixedOrder, position: int) -> None:
        """As `Split.prefetch`, of every part."""
        for number, part in enumerate(self.parts):
            part.prefetch(order.parts[number], order.position_of_part(number, position))

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy the packed Lab of `samples` into one contiguous array; may raise `DamagedSampleError`."""
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
    """`DIR` or `DIR:WEIGHT`; raises `UserError` for a weight that is not above 0."""
    location, colon, last = text.rpartition(":")
    if "://" in text and "/" not in text.split("://", 1)[1]:
        return text, None  # a host and its port
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
    shards: str | Path | Sequence[str], split: str = "train", cache: Cache | None = None
) -> Split | Mixture:
    """What `--shards`, once or more, asks for; weights are given to all or to none (then: by number of samples)."""
    shards = [str(shards)] if isinstance(shards, str | Path) else shards
    asked = [parse_shards(text) for text in shards]
    parts = [Split(location, split, cache=cache) for location, _ in asked]
    if len(parts) == 1:
        return parts[0]
    given = [weight for _, weight in asked if weight is not None]
    if given and len(given) < len(asked):
        raise UserError(f"--shards {' '.join(shards)}: give every set a weight (DIR:0.7), or none")
    return Mixture(parts, given or [Fraction(len(part)) for part in parts])


class SubstitutingReader:
    """Reads positions of a stream; where a sample is damaged, the first whole one at a later position stands in.

    Which one depends on the stream and the damage alone, not on who reads, so all ranks and all resumed runs see the
    same. More than `limit` damaged samples raise `UserError`. Threads may share one.

    `on_warning` hears of each damaged sample once; `substituted` counts the positions that got another sample.
    """

    def __init__(
        self, samples: Samples, stream: Stream, limit: int, on_warning: Callable[[str], None]
    ) -> None:
        self.samples, self.stream, self.on_warning = samples, stream, on_warning
        self.limit = min(limit, len(samples) - 1)  # something must be left to stand in
        self.damaged: frozenset[int] = frozenset()
        self.substituted = 0
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> np.ndarray:
        """The packed Lab of positions [start, stop)."""
        wanted = self.stream(start, stop)
        while True:
            numbers = self._replaced(wanted, start)
            try:
                pixels = self.samples.read(numbers)
            except DamagedSampleError as damage:
                self._remember(int(numbers[damage.row]), damage)
            else:
                with self._lock:
                    self.substituted += int((numbers != wanted).sum())
                return pixels

    def _remember(self, sample: int, damage: DamagedSampleError) -> None:
        with self._lock:
            if sample in self.damaged:
                return
            self.damaged |= {sample}
            if len(self.damaged) > self.limit:
                raise UserError(
                    f"more than {self.limit} damaged samples, the limit; the last: {damage}"
                ) from None
            self.on_warning(f"another sample stands in for one that is damaged: {damage}")

    def _replaced(self, wanted: np.ndarray, start: int) -> np.ndarray:
        """`wanted`, the sample numbers from position `start` on, without any sample that is known to be damaged."""
        numbers, damaged = wanted.copy(), self.damaged
        for row in np.flatnonzero(np.isin(wanted, list(damaged))).tolist() if damaged else []:
            position = start + row
            while int(numbers[row]) in damaged:
                position += 1
                numbers[row] = self.stream(position, position + 1)[0]
        return numbers
