"""The list of a split's shards, stored compactly in a few arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from shards.files import is_path_below


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A tar of samples, as the manifest lists it."""

    path: str  # relative to the manifest's folder
    samples: int  # number of samples
    bytes: int  # size of the tar
    sha256: str  # of the tar, in hexadecimal digits


def sample_counts(shards: Sequence[Shard]) -> np.ndarray:
    """Return the number of samples of each shard: int64 (shards,)."""
    if isinstance(shards, ShardTable):
        return shards.samples
    return np.array([shard.samples for shard in shards], np.int64)


class ShardTable(Sequence[Shard]):
    """A sequence of shards, stored in arrays; a `Shard` is created when it is accessed.

    Raises ValueError, TypeError or OverflowError if a field of a shard is invalid.
    """

    # This takes a tenth of the memory that one object per shard would take.

    def __init__(self, shards: Iterable[Shard]) -> None:
        paths, samples, sizes, digests = [], [], [], []
        for shard in shards:
            paths.append(shard.path.encode())
            samples.append(shard.samples)
            sizes.append(shard.bytes)
            digests.append(bytes.fromhex(shard.sha256))
            if not is_path_below(shard.path):
                raise ValueError(f"shard path {shard.path!r} points outside the folder")
        if not all(type(number) is int for number in (*samples, *sizes)):
            raise TypeError("samples and bytes must be integers")
        if min((*samples, *sizes), default=0) < 0:
            raise ValueError("samples and bytes must not be negative")
        if max(sum(samples), sum(sizes)) >= 1 << 63:
            raise OverflowError("more than 2^63 samples or bytes")
        if any(len(digest) != 32 for digest in digests):
            raise ValueError("sha256 must have 64 hexadecimal digits")
        self.samples = np.array(samples, np.int64)
        self._bytes = np.array(sizes, np.int64)
        self._paths, self._ends = b"".join(paths), np.cumsum([0, *map(len, paths)])
        self._digests = b"".join(digests)

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Shard, ...]: ...

    def __getitem__(self, index: int | slice) -> Shard | tuple[Shard, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        number = range(len(self))[index]  # also checks the range, and resolves negative indices
        return Shard(
            path=self._paths[self._ends[number] : self._ends[number + 1]].decode(),
            samples=int(self.samples[number]),
            bytes=int(self._bytes[number]),
            sha256=self._digests[32 * number : 32 * number + 32].hex(),
        )

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            own == theirs for own, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ShardTable of {len(self)} shards"
