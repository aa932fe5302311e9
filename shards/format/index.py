"""The index of a split, `index.npy`: the location and the CRC-32 of each sample.

It is an int64 array (samples, 3), in the order of the shards, with the columns

key       the sample's key
offset    the byte in the tar where the sample's .npy file starts
CRC-32    the checksum (as in zlib) of the pixels, which follow the .npy header
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shards.errors import UserError
from shards.files import RandomAccessFile, open_atomic, open_regular, sha256_of
from shards.format.manifest import (
    MEMBER,
    TAR_BLOCK,
    Shard,
    member_bytes,
    member_header,
    split_folder,
)
from shards.format.tar_layout import content_offsets, member_stride, tar_bytes, tar_header

INDEX = "index.npy"
COLUMNS = 3  # key, offset, CRC-32
_KEY_ENDS = b"." + MEMBER.encode() + b"\0"


def index_path(split: str) -> str:
    """Return the path of a split's index, relative to the shard set's folder OUT."""
    return (split_folder(Path(), split) / INDEX).as_posix()


def index_bytes(samples: int) -> int:
    """Return the size of the index of a split that has `samples` samples."""
    return len(_header(samples)) + samples * COLUMNS * 8


def write_index(path: Path, table: np.ndarray) -> None:
    """Write the index table of a split, int64 (samples, 3), to `path` atomically."""
    with open_atomic(path) as stream:
        np.save(stream, table, allow_pickle=False)


class Index(Protocol):
    """The interface to the index table of a split; threads may share an object."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows of the samples from `start` to `stop` - 1: int64 (rows, 3).

        Raises UserError if they cannot be read.
        """
        ...


@dataclass(frozen=True)
class IndexArray:
    """An index table in memory, int64 (samples, 3)."""

    table: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.table[start:stop]


class IndexFile:
    """The index table of a split with `samples` samples; its rows are read when needed.

    Raises UserError if the file is missing, is damaged or belongs to another manifest.
    """

    def __init__(self, path: Path, samples: int) -> None:
        if not path.exists():
            raise UserError(f"{path} is missing: restore it or build the shard set again")
        self.path, self.samples = path, samples
        self._file = RandomAccessFile(path)
        # As bytes, because numpy's parser raises many kinds of errors on damage.
        expected = _header(samples)
        header = bytearray(len(expected))
        self._file.read_into(memoryview(header), 0)
        if header != expected or self._file.size() != index_bytes(samples):
            raise self._damaged()
        self._start = len(header)

    def rows(self, start: int, stop: int) -> np.ndarray:
        width = COLUMNS * 8
        data = bytearray((stop - start) * width)
        if self._file.read_into(memoryview(data), self._start + start * width) < len(data):
            raise self._damaged()
        return np.frombuffer(data, np.int64).reshape(-1, COLUMNS)

    def _damaged(self) -> UserError:
        return UserError(
            f"{self.path} is damaged or does not belong to this manifest: "
            "restore it or build the shard set again"
        )


def load_index(path: Path, samples: int) -> np.ndarray:
    """Return the index table of a split with `samples` samples: int64 (samples, 3).

    Raises UserError if the file is missing, is damaged or belongs to another manifest.
    """
    return IndexFile(path, samples).rows(0, samples)


def _header(samples: int) -> bytes:
    """Return the .npy header of the index table of a split with `samples` samples."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<i8", "fortran_order": False, "shape": (samples, COLUMNS)}
    )
    return stream.getvalue()


def index_rows(keys: Sequence[int], checksums: Sequence[int], size: int, dtype: str) -> np.ndarray:
    """Return the rows of the index table for one shard: int64 (samples, 3).

    `keys` and `checksums` are the keys and the CRC-32 of its samples, in order.
    """
    return np.stack(
        [
            np.array(keys, np.int64),
            content_offsets(len(keys), size, dtype),
            np.array(checksums, np.int64),
        ],
        1,
    )


def join_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate the index rows of a split's shards: int64 (samples, 3)."""
    # The empty array is for a split without shards.
    return np.concatenate([np.empty((0, COLUMNS), np.int64), *rows])


def rebuild_index(
    paths: Sequence[Path], shards: Sequence[Shard], size: int, dtype: str
) -> np.ndarray:
    """Rebuild the index table of a split from its tars: int64 (samples, 3).

    `paths` are the local paths of `shards`, in the same order. Raises UserError if a
    tar does not match the manifest.
    """
    return join_rows(
        [rebuild_rows(path, shard, size, dtype) for path, shard in zip(paths, shards, strict=True)]
    )


def rebuild_rows(path: Path, shard: Shard, size: int, dtype: str) -> np.ndarray:
    """Rebuild the index rows of one shard from its tar: int64 (samples, 3).

    Raises UserError if the tar does not match the manifest.
    """
    _check_tar(path, shard, tar_bytes(shard.samples, size, dtype))
    header = member_header(size, dtype)
    keys, checksums = [], []
    with open_regular(path) as stream:
        for offset in content_offsets(shard.samples, size, dtype).tolist():
            member = stream.read(member_stride(size, dtype))
            key, body = _key_of(member[:TAR_BLOCK], size, dtype), TAR_BLOCK + len(header)
            if key < 0 or member[TAR_BLOCK:body] != header:
                raise UserError(
                    f"{path}: no sample of {size} pixels at byte {offset}: "
                    "restore it or build again"
                )
            keys.append(key)
            checksums.append(zlib.crc32(member[body : TAR_BLOCK + member_bytes(size, dtype)]))
    return index_rows(keys, checksums, size, dtype)


def _check_tar(path: Path, shard: Shard, expected: int) -> None:
    if shard.bytes != expected:
        raise UserError(
            f"the manifest entry for {path} is inconsistent ({shard.samples} samples should take "
            f"{expected} bytes, it says {shard.bytes}): build the shard set again"
        )
    if not path.is_file():
        raise UserError(
            f"{path} is in the manifest but missing: restore it or build the shard set again"
        )
    found = path.stat().st_size
    if found != shard.bytes:
        raise UserError(
            f"{path} has {found} bytes, but the manifest says {shard.bytes}: "
            "restore it or build again"
        )
    if sha256_of(path) != shard.sha256:
        raise UserError(
            f"{path} is damaged, its SHA-256 is not the one in the manifest: "
            "restore it or build again"
        )


def _key_of(header: bytes, size: int, dtype: str) -> int:
    """Return the sample number in a tar header of 512 bytes, or -1 if it is not one."""
    digits, end, _ = header[:100].partition(_KEY_ENDS)
    if not end or not digits.isdigit():
        return -1
    return int(digits) if header == tar_header(int(digits), size, dtype) else -1
