"""Random access to the samples of a shard set, which are verified when first read."""

from __future__ import annotations

import errno
import math
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from shards.errors import UserError
from shards.files import IrregularFileError, RandomAccessFile
from shards.format.manifest import (
    HELD_OUT,
    MEMBER,
    TAR_BLOCK,
    Manifest,
    Shard,
    key_name,
    member_header,
)
from shards.format.shard_table import sample_counts
from shards.format.tar_layout import member_stride, tar_bytes
from shards.read.cache import Cache
from shards.read.order import WINDOW_SHARDS, Order
from shards.read.split_files import RESTORE, Fault, SplitFiles
from shards.read.store import Folder, open_store

_TRIES = 3  # attempts to open a file, which a small cache may evict in between
# Shards open at the same time. When one is closed and opened again, its samples are
# checked again.
_MAX_OPEN = 256
# The limit for a URL is lower, because evicted files use disk space while open.
_MAX_OPEN_REMOTE = 2 * WINDOW_SHARDS


class DamagedSampleError(UserError):
    """Raised when a requested sample is damaged or missing.

    `row` is the index of the sample among the requested ones.
    """

    row: int = 0


@dataclass(frozen=True)
class _OpenShard:
    """An open shard, and which of its samples have been checked."""

    # Read with `pread`, not memory-mapped: reading a mapped file that was cut short, or
    # whose file system fails, kills the process by SIGBUS without a message.
    file: RandomAccessFile
    first: int  # number of its first sample in the split
    checked: np.ndarray  # (samples,) bool


class Split:
    """The samples of one split, numbered from 0 in the order of the manifest's shards.

    >>> split = Split("photos-256", "train")
    >>> batch = split.read([5, 1, 7])          # uint8 (3, 3, 256, 256)

    `root` is a folder or a URL; a URL requires a `cache`. Samples have the stored
    format of `shards.color.pack`. Threads may share a split. If `split` is None, it is
    `Manifest.training_split`. Raises UserError if the shard set is missing or damaged,
    or has no such split.
    """

    def __init__(
        self, root: str | Path, split: str | None = "train", *, cache: Cache | None = None
    ) -> None:
        self.root, self.cache = root, cache
        self.store = open_store(root, cache)
        self.manifest: Manifest = self.store.manifest()
        self.name = (
            self.manifest.training_split(root)
            if split is None
            else self.manifest.choose_split(split, root)
        )
        self.shards = self.manifest.splits[self.name]
        self.counts = sample_counts(self.shards)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.header = member_header(self.manifest.size, self.manifest.dtype)
        self.stride = member_stride(self.manifest.size, self.manifest.dtype)
        self.pixels_start = TAR_BLOCK + len(self.header)  # in a member of a tar
        self.files = SplitFiles(self.store, self.manifest, self.name)
        self.index = self.files.open_index()
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
        return int(self.index.rows(sample, sample + 1)[0, 0])

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
        shape = self.manifest.sample_shape
        if out.shape[1:] != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be contiguous {self.dtype} (N, {str(shape)[1:]}")
        shard_numbers = np.searchsorted(self.starts, numbers, side="right") - 1
        memory, length = _bytes_of(out), math.prod(shape) * self.dtype.itemsize
        for row, sample, number in zip(rows, numbers.tolist(), shard_numbers.tolist(), strict=True):
            shard = self._open.get(number) or self._open_shard(number, row)
            index, pixels = sample - shard.first, memory[row * length : (row + 1) * length]
            if not (shard.checked[index] and self._read_pixels(shard, index, pixels)):
                self._read_checked(number, index, pixels, row)

    def _read_pixels(self, shard: _OpenShard, index: int, pixels: memoryview) -> bool:
        """Read a shard's sample `index` into `pixels`; return if it succeeded."""
        try:
            start = index * self.stride + self.pixels_start
            return shard.file.read_into(pixels, start) == len(pixels)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return False

    def _read_checked(self, number: int, index: int, pixels: memoryview, row: int) -> None:
        """Read sample `index` of shard `number` into `pixels` and verify it.

        `row` is the sample's index among the requested ones. Raises DamagedSampleError
        if the sample does not match the index.
        """
        try:
            self._verify(number, index, pixels, row)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # The server of a network file system has lost track of the open file, but
            # may find it by its name.
            self._reopen(number)
            self._verify(number, index, pixels, row)

    def _reopen(self, number: int) -> None:
        with self._opening:
            self._open.pop(number, None)
        self.index = self.files.open_index()

    def _verify(self, number: int, index: int, pixels: memoryview, row: int) -> None:
        shard = self._open_shard(number, row)
        if self._problem(shard, index, pixels):
            fault = self._repair(number)  # downloads the damaged file again, once
            shard = self._open_shard(number, row)
            if problem := self._problem(shard, index, pixels):
                _raise_damaged(fault, problem, row)
        shard.checked[index] = True

    def _problem(self, shard: _OpenShard, index: int, pixels: memoryview) -> str:
        """Read a sample into `pixels`; return a message unless it matches the index."""
        number = shard.first + index
        key, offset, checksum = self.index.rows(number, number + 1)[0].tolist()
        start = index * self.stride
        head = bytearray(self.pixels_start)
        read = shard.file.read_into(memoryview(head), start)
        read += shard.file.read_into(pixels, start + self.pixels_start)
        name = f"{key_name(key)}.{MEMBER}\0".encode()
        member = f"the member at byte {start + TAR_BLOCK}"
        if read < len(head) + len(pixels):
            return f"{member} is cut off at byte {start + read}"
        if (
            offset != start + TAR_BLOCK
            or not head.startswith(name)
            or head[TAR_BLOCK:] != self.header
        ):
            return f"{member} does not have the headers of {name[:-1].decode()!r}"
        if zlib.crc32(pixels) != checksum:
            return f"{member} ({name[:-1].decode()}) has a CRC-32 that differs from the index"
        return ""

    def _repair(self, number: int) -> Fault:
        """Download a damaged shard or index again; return the file that is at fault."""
        with self._repairing:
            # Once per shard. Afterwards the shard and the index are opened again.
            if number not in self._faults:
                first, end = self.starts[number : number + 2].tolist()
                self._faults[number] = self.files.replace_damaged(self.shards[number], (first, end))
                self._reopen(number)
            return self._faults[number]

    def _open_shard(self, number: int, row: int) -> _OpenShard:
        """Return shard `number`, opened on its first use."""
        with self._opening:
            if number not in self._open:
                shard = self._open_file(number, row)
                local = isinstance(self.store, Folder)
                if len(self._open) >= (_MAX_OPEN if local else _MAX_OPEN_REMOTE):
                    self._open.pop(next(iter(self._open)))
                self._open[number] = shard
            return self._open[number]

    def _open_file(self, number: int, row: int) -> _OpenShard:
        record = self.shards[number]
        fault = Fault(f"{self.store.location}/{record.path}", RESTORE)
        try:
            file = self._file(record)
        except (FileNotFoundError, IrregularFileError):
            _raise_damaged(fault, "it is in the manifest but missing, or not a regular file", row)
        found = file.size()
        expected = tar_bytes(record.samples, self.size, self.manifest.dtype)
        if not found == record.bytes == expected:
            _raise_damaged(fault, f"it has {found} bytes instead of {record.bytes}", row)
        return _OpenShard(file, int(self.starts[number]), np.zeros(record.samples, bool))

    def _file(self, record: Shard) -> RandomAccessFile:
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):
                return RandomAccessFile(self.files.tar(record))
        return RandomAccessFile(self.files.tar(record))


def _bytes_of(array: np.ndarray) -> memoryview:
    """Return a view of the bytes of a contiguous array."""
    return array.data.cast("B") if array.size else memoryview(b"")


def _raise_damaged(fault: Fault, problem: str, row: int) -> NoReturn:
    error = DamagedSampleError(f"{fault.file}: {problem}: {fault.advice}")
    error.row = row
    raise error


def open_held_out(
    root: str | Path, cache: Cache | None = None, name: str | None = None, option: str = ""
) -> Split:
    """Open the split to evaluate on: `val`, `validation`, `test` or the only split.

    With `name`, open the split of this name. `option` is the option of the command that
    chooses a split, for messages. Raises UserError if there is no such split.
    """
    manifest = open_store(root, cache).manifest()
    if name is not None:
        manifest.check_split(name, root)
    elif not manifest.held_out() and len(manifest.splits) > 1:
        advice = f"choose one with {option}" if option else "rename one with `shards build`"
        raise UserError(
            f"{root} has no split {', '.join(HELD_OUT)}: {advice}: {', '.join(manifest.splits)}"
        )
    return Split(root, name or manifest.held_out() or HELD_OUT[0], cache=cache)
