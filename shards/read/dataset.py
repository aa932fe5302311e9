"""Random access to the samples of a shard set, which are verified when first read."""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from shards.errors import UserError
from shards.files import IrregularFileError, open_regular
from shards.format.manifest import MEMBER, TAR_BLOCK, Manifest, Shard, key_name, member_header
from shards.format.shard_table import sample_counts
from shards.format.tar_layout import member_stride, tar_bytes
from shards.read.cache import Cache
from shards.read.order import WINDOW_SHARDS, Order
from shards.read.split_files import RESTORE, Fault, SplitFiles
from shards.read.store import Folder, open_store

_TRIES = 3  # attempts to open a file, which a small cache may evict in between
# Shards mapped at the same time. When one is closed and opened again, its samples are
# checked again.
_MAX_OPEN = 256
# The limit for a URL is lower, because evicted files use disk space while mapped.
_MAX_OPEN_REMOTE = 2 * WINDOW_SHARDS


class DamagedSampleError(UserError):
    """Raised when a requested sample is damaged or missing.

    `row` is the index of the sample among the requested ones.
    """

    row: int = 0


@dataclass(frozen=True)
class _OpenShard:
    """A memory-mapped shard, and which of its samples have been checked."""

    first: int  # number of its first sample in the split
    pixels: np.ndarray  # (samples, 3, size, size)
    heads: np.ndarray  # (samples, bytes of tar header and .npy header) uint8
    checked: np.ndarray  # (samples,) bool


class Split:
    """The samples of one split, numbered from 0 in the order of the manifest's shards.

    >>> split = Split("photos-256", "train")
    >>> batch = split.read([5, 1, 7])          # uint8 (3, 3, 256, 256)

    `root` is a folder or a URL; a URL requires a `cache`. Samples have the stored
    format of `shards.color.pack`. Threads may share a split. Raises UserError if the
    shard set is missing or damaged, or has no such split.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, cache: Cache | None = None
    ) -> None:
        self.root, self.cache = root, cache
        self.store = open_store(root, cache)
        self.manifest: Manifest = self.store.manifest()
        self.name = self.manifest.choose_split(split, root)
        self.shards = self.manifest.splits[self.name]
        self.counts = sample_counts(self.shards)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.header = member_header(self.manifest.size, self.manifest.dtype)
        self.files = SplitFiles(self.store, self.manifest, self.name)
        self.index = self.files.load_index()
        self._open: dict[int, _OpenShard] = {}
        self._opening, self._repairing = threading.Lock(), threading.Lock()
        self._faults: dict[int, Fault] = {}  # what `_repair` returned for a shard
        self._prefetched: tuple[int, int] | None = None  # the last window that was prefetched

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> tuple[object, ...]:
        # A pickled copy opens all files again.
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
        """Return a sample's key, which identifies its source image in OUT/sources."""
        return int(self.index[sample, 0])

    def order(self, seed: int) -> Order:
        """Return the endless order in which training with `seed` reads the samples."""
        return Order(self.counts, seed)

    def prefetch(self, order: Order, position: int) -> None:
        """Start downloading the shards that `order` reads from `position` on."""
        window = order.locate_window(position)
        if window != self._prefetched:
            self._prefetched = window
            self.store.prefetch(
                self.shards[number] for number in order.shards_to_prefetch(position)
            )

    def empty(self, count: int) -> np.ndarray:
        """Return an uninitialised array for `count` samples: (count, 3, size, size)."""
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
        """Copy the sample with number `numbers[i]` into `out[rows[i]]`, for every i.

        numbers: (rows,) int64. out: (N, 3, size, size), uint8 or float16. Raises
        DamagedSampleError if a sample is damaged or missing.
        """
        shard_numbers = np.searchsorted(self.starts, numbers, side="right") - 1
        for row, sample, number in zip(rows, numbers.tolist(), shard_numbers.tolist(), strict=True):
            shard = self._open.get(number) or self._open_shard(number, row)
            index = sample - shard.first
            if not shard.checked[index]:
                shard = self._check(number, index, row)
            out[row] = shard.pixels[index]

    def _check(self, number: int, index: int, row: int) -> _OpenShard:
        """Verify sample `index` of shard `number` on its first use; return the shard.

        `row` is the sample's index among the requested ones. Raises DamagedSampleError
        if the sample does not match the index.
        """
        shard = self._open_shard(number, row)
        if self._problem(shard, index):
            fault = self._repair(number)  # downloads the damaged file again, once
            shard = self._open_shard(number, row)
            if problem := self._problem(shard, index):
                _raise_damaged(fault, problem, row)
        shard.checked[index] = True
        return shard

    def _problem(self, shard: _OpenShard, index: int) -> str:
        """Return a message if a sample does not match the index, or "" if it does."""
        key, offset, checksum = map(int, self.index[shard.first + index])
        head = shard.heads[index].tobytes()
        name = f"{key_name(key)}.{MEMBER}\0".encode()
        expected = TAR_BLOCK + index * member_stride(self.manifest.size, self.manifest.dtype)
        member = f"the member at byte {expected}"
        if offset != expected or not head.startswith(name) or head[TAR_BLOCK:] != self.header:
            return f"{member} does not have the headers of {name[:-1].decode()!r}"
        if zlib.crc32(shard.pixels[index]) != checksum:
            return f"{member} ({name[:-1].decode()}) has a CRC-32 that differs from the index"
        return ""

    def _repair(self, number: int) -> Fault:
        """Download a damaged shard or index again; return the file that is at fault."""
        with self._repairing:
            # Once per shard. Afterwards the shard and the index are opened again.
            if number not in self._faults:
                rows = slice(*self.starts[number : number + 2].tolist())
                self._faults[number] = self.files.replace_damaged(self.shards[number], rows)
                with self._opening:
                    self._open.pop(number, None)
                self.index = self.files.load_index()
            return self._faults[number]

    def _open_shard(self, number: int, row: int) -> _OpenShard:
        """Return shard `number`, memory-mapped on its first use."""
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
        fault = Fault(f"{self.store.location}/{record.path}", RESTORE)
        try:
            with self._file(record) as stream:
                found = os.fstat(stream.fileno()).st_size
                expected = tar_bytes(record.samples, self.size, self.manifest.dtype)
                if not found == record.bytes == expected:
                    problem = f"it has {found} bytes instead of {record.bytes}"
                    _raise_damaged(fault, problem, row)
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, IrregularFileError):
            _raise_damaged(fault, "it is in the manifest but missing, or not a regular file", row)
        return self._arrays(mapped, record.samples, int(self.starts[number]))

    def _file(self, record: Shard) -> BinaryIO:
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):
                return open_regular(self.files.tar(record))
        return open_regular(self.files.tar(record))

    def _arrays(self, mapped: mmap.mmap, samples: int, first: int) -> _OpenShard:
        side, item, head = self.size, self.dtype.itemsize, TAR_BLOCK + len(self.header)
        # All members of a tar have the same length, so a shard is one strided array.
        strides = (member_stride(side, self.manifest.dtype), side * side * item, side * item, item)
        pixels = np.ndarray((samples, 3, side, side), self.dtype, mapped, head, strides)
        heads = np.ndarray((samples, head), np.uint8, mapped, 0, (strides[0], 1))
        return _OpenShard(first, pixels, heads, np.zeros(samples, bool))


def _raise_damaged(fault: Fault, problem: str, row: int) -> NoReturn:
    error = DamagedSampleError(f"{fault.file}: {problem}: {fault.advice}")
    error.row = row
    raise error


def open_held_out(root: str | Path, cache: Cache | None = None) -> Split:
    """Open the split to evaluate on: `val`, `validation`, `test` or the only split.

    Raises UserError if there are several splits but none of these.
    """
    manifest = open_store(root, cache).manifest()
    return Split(root, manifest.held_out() or "val", cache=cache)
