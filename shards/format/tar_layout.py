"""Write tars of Lab arrays, byte for byte as webdataset does, and read them."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import UserError
from shards.files import open_atomic, open_regular, path_below, write_atomic
from shards.format.manifest import (
    MEMBER,
    TAR_BLOCK,
    Shard,
    index_text,
    key_name,
    member_bytes,
    member_header,
)

_MODE = 0o644


def member_stride(size: int, dtype: str) -> int:
    """Return the size in bytes of a tar member: tar header, .npy file and padding."""
    return TAR_BLOCK + -(-member_bytes(size, dtype) // TAR_BLOCK) * TAR_BLOCK


def content_offsets(samples: int, size: int, dtype: str) -> np.ndarray:
    """Return the byte offsets of the samples' .npy files in a tar: int64 (samples,)."""
    return TAR_BLOCK + member_stride(size, dtype) * np.arange(samples, dtype=np.int64)


def tar_bytes(samples: int, size: int, dtype: str) -> int:
    """Return the size in bytes of a tar of `samples` samples."""
    # After the members come two empty blocks of 512 bytes, and padding to a multiple of
    # 20 blocks (a tar record).
    used = samples * member_stride(size, dtype) + 2 * TAR_BLOCK
    return -(-used // (20 * TAR_BLOCK)) * 20 * TAR_BLOCK


def tar_header(key: int, size: int, dtype: str) -> bytes:
    """Return the 512-byte tar header of a sample, as webdataset writes it."""
    info = tarfile.TarInfo(f"{key_name(key)}.{MEMBER}")
    info.size, info.mode = member_bytes(size, dtype), _MODE
    return info.tobuf(tarfile.USTAR_FORMAT)


def read_pixels(
    path: Path, samples: int, size: int, dtype: str, chunk: int = 1
) -> Iterator[np.ndarray]:
    """Yield the pixels of a shard in order, up to `chunk` samples at a time.

    Each array is (samples, 3, size, size), uint8 or float16. Raises UserError if the
    length of the tar is wrong.
    """
    stride, start = member_stride(size, dtype), TAR_BLOCK + len(member_header(size, dtype))
    item = np.dtype(dtype).itemsize
    # All members have the same length, so the pixels are one strided array.
    strides = (stride, size * size * item, size * item, item)
    with open_regular(path) as stream:
        _check_bytes(path, os.fstat(stream.fileno()).st_size, tar_bytes(samples, size, dtype))
        for first in range(0, samples, chunk):
            count = min(chunk, samples - first)
            data = stream.read(count * stride)
            _check_bytes(path, first * stride + len(data), (first + count) * stride)
            yield np.ndarray((count, 3, size, size), dtype, data, start, strides)


def _check_bytes(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise UserError(
            f"{path} has {found} bytes instead of {expected}: "
            "restore it, or run the same build again"
        )


class TarOfSamples:
    """A context manager that writes one shard: a tar and its .idx file.

    Both files appear only if the `with` block succeeds. Afterwards, `shard` describes
    the tar.

    >>> with TarOfSamples(root, "train/000000.tar", 256, "uint8") as tar:
    ...     tar.add(42, pixels)
    >>> tar.shard
    """

    def __init__(self, root: Path, path: str, size: int, dtype: str) -> None:
        self.path, self.size, self.dtype = path, size, dtype
        self.target = path_below(root, path, writing=True)
        self.header = member_header(size, dtype)
        self.padding = bytes(member_stride(size, dtype) - TAR_BLOCK - member_bytes(size, dtype))
        self.keys: list[int] = []
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.shard: Shard | None = None

    def __enter__(self) -> TarOfSamples:
        self.stack = ExitStack()
        self.stream = self.stack.enter_context(open_atomic(self.target))
        return self

    def add(self, key: int, pixels: bytes) -> None:
        """Append a sample to the tar: its key and its stored pixels in C order."""
        header = tar_header(key, self.size, self.dtype)
        self._write(b"".join((header, self.header, pixels, self.padding)))
        self.keys.append(key)

    def _write(self, data: bytes) -> None:
        self.digest.update(data)
        self.bytes += self.stream.write(data)

    def __exit__(self, *failure: Any) -> bool | None:
        if failure[0] is None:
            try:
                self._finish()
            except BaseException as error:  # remove the temporary file, for example on ENOSPC
                self.stack.__exit__(type(error), error, error.__traceback__)
                raise
        return self.stack.__exit__(*failure)

    def _finish(self) -> None:
        samples, expected = len(self.keys), tar_bytes(len(self.keys), self.size, self.dtype)
        self._write(bytes(expected - samples * member_stride(self.size, self.dtype)))
        if self.bytes != expected:
            raise AssertionError(f"{self.path}: {self.bytes} bytes for {samples} samples")
        text = index_text(
            np.array(self.keys),
            content_offsets(samples, self.size, self.dtype),
            self.size,
            self.dtype,
        )
        write_atomic(self.target.with_suffix(".idx"), text.encode())
        self.shard = Shard(
            path=self.path, samples=samples, bytes=self.bytes, sha256=self.digest.hexdigest()
        )
