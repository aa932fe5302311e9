"""Random access to the samples of a shard set.

Samples are copied from memory-mapped tars into one array, without torch, pickle or
parsing of tars: all members have the same length, so a shard is one strided array. When
a sample is read for the first time, its name, header and checksum are compared with the
manifest and the index. At most `_MAX_OPEN` shards stay open. When a shard is closed and
opened again, its samples are checked again.
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

_TRIES = 3  # attempts to open a file, which a small cache may evict in between
_MAX_OPEN = 256  # shards mapped at the same time
# The limit for a URL is lower, because evicted files use disk space while mapped.
_MAX_OPEN_REMOTE = 2 * WINDOW_SHARDS


class DamagedSampleError(UserError):
    """Raised when a requested sample is damaged or missing.

    `row` is the index of the sample among the requested ones.
    """

    row: int = 0


@dataclass(frozen=True)
class _OpenShard:
    """A memory-mapped tar: its pixels, its headers, and which samples were checked."""

    first: int  # number of its first sample in the split
    pixels: np.ndarray  # (samples, 3, size, size)
    heads: np.ndarray  # (samples, bytes of tar header and .npy header) uint8
    checked: np.ndarray  # (samples,) bool


class Split:
    """The samples of one split, numbered from 0 in the order of the manifest's shards.

    >>> split = Split("photos-256", "train")
    >>> batch = split.read([5, 1, 7])          # uint8 (3, 3, 256, 256)

    Samples have the stored format of `shards.color.pack`. `root` is a folder or a URL;
    a URL requires a `cache`. Several threads may read at the same time. A pickled copy
    opens all files again. Raises UserError if the shard set is missing or damaged, or
    has no such split.
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
        self._prefetched: tuple[int, int] | None = None  # the last window that was prefetched

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Split, cache=self.cache), (self.root, self.name)

    def sibling(self, split: str) -> Split:
        """Open the split named `split` of the same shard set.

        Raises UserError if there is no such split.
        """
        return Split(self.root, split, cache=self.cache)

    @property
    def dataset_id(self) -> str:
        """16 hexadecimal digits that identify the shard set."""
        return self.manifest.dataset_id

    @property
    def size(self) -> int:
        """Height and width of every sample, in pixels."""
        return self.manifest.size

    @property
    def dtype(self) -> np.dtype:
        """Data type of the stored samples: uint8 or float16."""
        return np.dtype(self.manifest.dtype)

    def key(self, sample: int) -> int:
        """Return the key of a sample, which identifies its image in OUT/sources."""
        return int(self.index[sample, 0])

    def order(self, seed: int) -> Order:
        """Return the endless order in which training with `seed` reads the samples."""
        return Order(self.counts, seed)

    def prefetch(self, order: Order, position: int) -> None:
        """Start downloading the shards that `order` needs at `position` and soon after.

        Does nothing if the shard set is on this machine.
        """
        window = order.locate_window(position)
        if window != self._prefetched:
            self._prefetched = window
            self.store.prefetch(
                self.shards[number] for number in order.shards_to_prefetch(position)
            )

    def empty(self, count: int) -> np.ndarray:
        """Return an uninitialised array for `count` samples.

        (count, 3, size, size), uint8 or float16.
        """
        return np.empty((count, *self.manifest.sample_shape), self.dtype)

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy the stored pixels of `samples` into one contiguous array, or into `out`.

        Returns (samples, 3, size, size), uint8 or float16. Raises DamagedSampleError if
        a sample is damaged or missing.
        """
        numbers = np.asarray(
            samples if isinstance(samples, np.ndarray) else list(samples), np.int64
        )
        out = self.empty(len(numbers)) if out is None else out
        self.read_rows(numbers, out, range(len(numbers)))
        return out

    def read_rows(self, numbers: np.ndarray, out: np.ndarray, rows: Iterable[int]) -> None:
        """Copy the samples with these `numbers` into the given `rows` of `out`.

        numbers: (rows,) int64. out: (N, 3, size, size), uint8 or float16. Raises
        DamagedSampleError if a sample is damaged or missing.
        """
        shard_numbers = np.searchsorted(self.starts, numbers, side="right") - 1
        for row, sample, number in zip(rows, numbers.tolist(), shard_numbers.tolist(), strict=True):
            shard = self._open.get(number) or self._open_shard(number, row)
            index = sample - shard.first
            if not shard.checked[index]:
                self._check(number, shard, index, row)
            out[row] = shard.pixels[index]

    def _check(self, number: int, shard: _OpenShard, index: int, row: int) -> None:
        """Verify a sample that is read for the first time.

        Raises DamagedSampleError unless its name, .npy header, byte offset and CRC-32
        match the index. `number` is the shard, `index` the sample's index in the shard,
        and `row` its index among the requested samples.
        """
        key, offset, checksum = map(int, self.index[shard.first + index])
        head = shard.heads[index].tobytes()
        name = f"{key_name(key)}.{MEMBER}\0".encode()
        expected = TAR_BLOCK + index * member_stride(self.manifest.size, self.manifest.dtype)
        if offset != expected or not head.startswith(name) or head[TAR_BLOCK:] != self.header:
            problem = f"does not have the headers of {name[:-1].decode()!r}"
        elif zlib.crc32(shard.pixels[index]) != checksum:
            problem = f"({name[:-1].decode()}) has a CRC-32 that differs from the index"
        else:
            shard.checked[index] = True
            return
        self._raise_damaged(number, f"the member at byte {expected} {problem}", row)

    def _raise_damaged(self, number: int, problem: str, row: int) -> NoReturn:
        path = f"{self.store.location}/{self.shards[number].path}"
        error = DamagedSampleError(
            f"{path}: {problem}: "
            "restore it (`colortrain shards verify` finds damage) or build the shard set again"
        )
        error.row = row
        raise error

    def _open_shard(self, number: int, row: int) -> _OpenShard:
        """Return shard `number`, memory-mapped on its first use.

        `row` is the index of the requested sample, for DamagedSampleError.
        """
        with self._opening:
            if number not in self._open:
                shard = self._map(number, row)
                local = isinstance(self.store, Folder)
                if len(self._open) >= (_MAX_OPEN if local else _MAX_OPEN_REMOTE):
                    self._open.pop(next(iter(self._open)))
                self._open[number] = shard
            return self._open[number]

    def _map(self, number: int, row: int) -> _OpenShard:
        record = self.shards[number]
        try:
            with self._file(record) as stream:
                found = os.fstat(stream.fileno()).st_size
                expected = tar_bytes(record.samples, self.size, self.manifest.dtype)
                if not found == record.bytes == expected:
                    self._raise_damaged(
                        number, f"it has {found} bytes instead of {record.bytes}", row
                    )
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, IsADirectoryError):
            self._raise_damaged(number, "it is in the manifest but missing", row)
        return self._arrays(mapped, record.samples, int(self.starts[number]))

    def _file(self, record: Shard) -> BinaryIO:
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):
                return open(
                    self.store.path(record.path, bytes=record.bytes, sha256=record.sha256), "rb"
                )
        return open(self.store.path(record.path, bytes=record.bytes, sha256=record.sha256), "rb")

    def _arrays(self, mapped: mmap.mmap, samples: int, first: int) -> _OpenShard:
        side, item, head = self.size, self.dtype.itemsize, TAR_BLOCK + len(self.header)
        strides = (member_stride(side, self.manifest.dtype), side * side * item, side * item, item)
        pixels = np.ndarray((samples, 3, side, side), self.dtype, mapped, head, strides)
        heads = np.ndarray((samples, head), np.uint8, mapped, 0, (strides[0], 1))
        return _OpenShard(first, pixels, heads, np.zeros(samples, bool))

    def _load_index(self) -> np.ndarray:
        """Return the split's index table: int64 (samples, 3).

        If index.npy is missing, rebuild it from the tars, with a warning.
        """
        path = self.store.path((split_folder(Path(), self.name) / INDEX).as_posix())
        if path.is_file():
            return load_index(path, len(self))
        tars = [
            self.store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)
            for shard in self.shards
        ]
        table = rebuild_index(tars, self.shards, self.size, self.manifest.dtype)
        warnings.warn(f"{path} was missing and was rebuilt from the tars", stacklevel=3)
        with suppress(OSError):  # in a read-only folder it is rebuilt every time
            write_index(path, table)
        return table


def open_held_out(root: str | Path, cache: Cache | None = None) -> Split:
    """Open the split to evaluate on: `val`, `validation`, `test` or the only split.

    The first that exists is taken. Raises UserError if there are several splits but
    none of these.
    """
    manifest = load_manifest(open_store(root, cache).path(MANIFEST).parent)
    return Split(root, manifest.held_out() or "val", cache=cache)
