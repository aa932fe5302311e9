"""Indexed reading of a shard set: any samples, in any order, copied straight from mapped tars into one array.

No torch, no pickle, no tar parsing: all members have one length, so a shard is one strided array. The first time a
sample is read, its name, its header and its checksum must be what the manifest and the index say, before a byte of it
is used; a shard that is opened again, after more than `_MAX_OPEN` others, is checked again.
"""

from __future__ import annotations

import mmap
import os
import threading
import warnings
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from shards.errors import UserError
from shards.format.index import INDEX, load_index, rebuild_index, write_index
from shards.format.manifest import (
    MANIFEST,
    MEMBER,
    TAR_BLOCK,
    Manifest,
    Shard,
    key_name,
    load_manifest,
    member_header,
    split_folder,
)
from shards.format.shard_table import sample_counts
from shards.format.tar_layout import member_stride, tar_bytes
from shards.read.cache import Cache
from shards.read.order import WINDOW_SHARDS, Order
from shards.read.store import Folder, open_store

_TRIES = 3  # to open a file that a small cache drops again for others
_MAX_OPEN = 256  # shards mapped at a time
_MAX_HELD = (
    2 * WINDOW_SHARDS
)  # of a URL: what a cache has dropped keeps its room on the disk while it is mapped


class DamagedSampleError(UserError):
    """A sample that cannot be believed, or not be found; `row` is its place among those asked for."""

    row: int = 0


@dataclass(frozen=True)
class _OpenShard:
    """One mapped tar: its samples as an array, what stands before each, and which were found whole."""

    first: int  # number of its first sample in the split
    pixels: np.ndarray  # (samples, 3, size, size)
    heads: np.ndarray  # (samples, tar header and .npy header) uint8
    whole: np.ndarray  # (samples,) bool


class Split:
    """The samples of one split, numbered 0..N-1 through its shards in the manifest's order.

    >>> split = Split("photos-256", "train")
    >>> batch = split.read([5, 1, 7])          # uint8 (3, 3, 256, 256): packed Lab

    `root` is a folder or a URL; a URL needs a `cache`. Several threads may read at once; a copy sent to another process
    opens everything anew.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, cache: Cache | None = None
    ) -> None:
        self.root, self.cache = root, cache
        self.store = open_store(root, cache)
        self.manifest: Manifest = load_manifest(self.store.path(MANIFEST).parent)
        self.name = self.manifest.choose_split(split, root)
        self.shards = self.manifest.splits[self.name]
        self.counts = sample_counts(self.shards)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.header = member_header(self.manifest.size, self.manifest.dtype)
        self.index = self._load_index()
        self._open: dict[int, _OpenShard] = {}
        self._opening = threading.Lock()
        self._prefetched: tuple[int, int] | None = (
            None  # the last window of shards that was asked for
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Split, cache=self.cache), (self.root, self.name)

    def sibling(self, split: str) -> Split:
        """Another split of the same set."""
        return Split(self.root, split, cache=self.cache)

    @property
    def dataset_id(self) -> str:
        return self.manifest.dataset_id

    @property
    def size(self) -> int:
        """Height and width of every sample, in pixels."""
        return self.manifest.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.manifest.dtype)

    def key(self, sample: int) -> int:
        """The key of a sample, the number its source has in OUT/sources."""
        return int(self.index[sample, 0])

    def order(self, seed: int) -> Order:
        """The endless stream of this split's samples that training with `seed` sees."""
        return Order(self.counts, seed)

    def prefetch(self, order: Order, position: int) -> None:
        """Have the shards that training will soon need brought here, if they are elsewhere."""
        window = order.window(position)
        if window != self._prefetched:
            self._prefetched = window
            self.store.prefetch(self.shards[number] for number in order.upcoming(position))

    def empty(self, count: int) -> np.ndarray:
        """Room for `count` samples: (count, 3, size, size) of the stored type."""
        return np.empty((count, *self.manifest.sample_shape), self.dtype)

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy the packed Lab of `samples` into one contiguous array (into `out` if given); may raise `DamagedSampleError`."""
        numbers = np.asarray(
            samples if isinstance(samples, np.ndarray) else list(samples), np.int64
        )
        out = self.empty(len(numbers)) if out is None else out
        self.read_rows(numbers, out, range(len(numbers)))
        return out

    def read_rows(self, numbers: np.ndarray, out: np.ndarray, rows: Iterable[int]) -> None:
        """Copy the sample `numbers`, each into its own of the `rows` of `out`."""
        which = np.searchsorted(self.starts, numbers, side="right") - 1
        for row, sample, number in zip(rows, numbers.tolist(), which.tolist(), strict=True):
            shard = self._open.get(number) or self._opened(number, row)
            place = sample - shard.first
            if not shard.whole[place]:
                self._check(number, shard, place, row)
            out[row] = shard.pixels[place]

    def _check(self, number: int, shard: _OpenShard, place: int, row: int) -> None:
        """Raise `DamagedSampleError` unless the member's name, header, offset and checksum are what the set says they are."""
        key, offset, checksum = map(int, self.index[shard.first + place])
        head = shard.heads[place].tobytes()
        name = f"{key_name(key)}.{MEMBER}\0".encode()
        begins = TAR_BLOCK + place * member_stride(self.manifest.size, self.manifest.dtype)
        if offset != begins or not head.startswith(name) or head[TAR_BLOCK:] != self.header:
            what = f"does not begin as {name[:-1].decode()!r} should"
        elif zlib.crc32(shard.pixels[place]) != checksum:
            what = f"({name[:-1].decode()}) has another CRC-32 than the index says"
        else:
            shard.whole[place] = True
            return
        self._refuse(number, f"the member at byte {begins} {what}", row)

    def _refuse(self, number: int, what: str, row: int) -> NoReturn:
        """Raise `DamagedSampleError`: what is wrong with a shard."""
        path = f"{self.store.location}/{self.shards[number].path}"
        damaged = DamagedSampleError(
            f"{path}: {what}: restore it (`python -m shards verify` finds all damage) or build again"
        )
        damaged.row = row
        raise damaged

    def _opened(self, number: int, row: int) -> _OpenShard:
        """The shard's mapping, made when first needed."""
        with self._opening:
            if number not in self._open:
                shard = self._map(number, row)
                if len(self._open) >= (_MAX_OPEN if isinstance(self.store, Folder) else _MAX_HELD):
                    self._open.pop(next(iter(self._open)))
                self._open[number] = shard
            return self._open[number]

    def _map(self, number: int, row: int) -> _OpenShard:
        record = self.shards[number]
        try:
            with self._file(record) as stream:
                found = os.fstat(stream.fileno()).st_size
                if (
                    not found
                    == record.bytes
                    == tar_bytes(record.samples, self.size, self.manifest.dtype)
                ):
                    self._refuse(number, f"{found} bytes instead of {record.bytes}", row)
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, IsADirectoryError):
            self._refuse(number, "is missing, the manifest names it", row)
        return self._arrays(mapped, record.samples, int(self.starts[number]))

    def _file(self, record: Shard) -> BinaryIO:
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):
                return open(
                    self.store.path(record.path, bytes=record.bytes, sha256=record.sha256), "rb"
                )
        return open(self.store.path(record.path, bytes=record.bytes, sha256=record.sha256), "rb")

    def _arrays(self, mapped: mmap.mmap, samples: int, first: int) -> _OpenShard:
        side, item, before = self.size, self.dtype.itemsize, TAR_BLOCK + len(self.header)
        strides = (member_stride(side, self.manifest.dtype), side * side * item, side * item, item)
        pixels = np.ndarray((samples, 3, side, side), self.dtype, mapped, before, strides)
        heads = np.ndarray((samples, before), np.uint8, mapped, 0, (strides[0], 1))
        return _OpenShard(first, pixels, heads, np.zeros(samples, bool))

    def _load_index(self) -> np.ndarray:
        """The split's table, made anew from the tars where there is none."""
        path = self.store.path((split_folder(Path(), self.name) / INDEX).as_posix())
        if path.is_file():
            return load_index(path, len(self))
        tars = [
            self.store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)
            for shard in self.shards
        ]
        table = rebuild_index(tars, self.shards, self.size, self.manifest.dtype)
        warnings.warn(f"{path} was missing, it was made again from the tars", stacklevel=3)
        with suppress(OSError):  # a read-only set: the next to open it does the same
            write_index(path, table)
        return table


def open_held_out(root: str | Path, cache: Cache | None = None) -> Split:
    """The split to score on: `val`, `validation` or `test`, else the only one there is."""
    manifest = load_manifest(open_store(root, cache).path(MANIFEST).parent)
    return Split(root, manifest.held_out() or "val", cache=cache)
