"""Read tars without an index: list them, stream their bytes, decode their samples."""

from __future__ import annotations

import glob
import io
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from braceexpand import braceexpand

from shards.color import pack, rgb_to_lab
from shards.errors import UserError
from shards.format.manifest import DTYPES, MEMBER, TAR_BLOCK
from shards.read.backends import filesystem, redact, scheme_of
from shards.read.remote import RetryPolicy, with_retries
from shards.sources.decode import UndecodableError, decode_reduced, fit_image, open_image

IMAGES = ("jpg", "jpeg", "png", "webp")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_NO_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_BLOCK_BYTES = 8 << 20


class ByteSource(Protocol):
    """The interface of a sequential stream of bytes."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


def list_tars(pattern: str) -> tuple[str, ...]:
    """Return the paths or URLs that match a pattern with braces and wildcards, sorted.

    Raises UserError if no file matches.

    >>> list_tars("s3://bucket/set/{000000..000099}.tar")
    """
    try:
        names = [name for each in braceexpand(pattern) for name in _expand(each)]
    except ValueError:
        raise UserError(
            f"{pattern}: braces do not match: write PATH/{{000000..000099}}.tar or PATH/*.tar"
        ) from None
    if not names:
        raise UserError(
            f"{pattern} names no files: "
            "write PATH/{000000..000099}.tar or 'PATH/*.tar', in quotes"
        )
    return tuple(sorted(set(names)))


def _expand(name: str) -> list[str]:
    """Return the paths or URLs that match a pattern without braces.

    Raises UserError if a local path without wildcards does not exist.
    """
    scheme = scheme_of(name)
    if scheme is None:
        if glob.has_magic(name):
            return sorted(glob.glob(name))  # noqa: PTH207 - the pattern may be absolute
        if not Path(name).is_file():
            raise UserError(f"no file {name}: check the path, or the braces of the pattern")
        return [name]
    system = filesystem(name)
    if "*" not in name:
        return [name]  # unchecked
    names = with_retries(name, lambda: system.glob(name), RetryPolicy())
    return [each if scheme_of(each) else f"{scheme}://{each}" for each in names]


class _RemoteFile:
    """A file at a URL, read sequentially and reopened after a failure."""

    def __init__(self, url: str, policy: RetryPolicy) -> None:
        self.url, self.policy = url, policy
        self._position = 0
        self._source: Any = None

    def read(self, size: int = -1, /) -> bytes:
        data = with_retries(self.url, lambda: self._try(size), self.policy)
        self._position += len(data)
        return data

    def _try(self, size: int) -> bytes:
        try:
            if self._source is None:
                self._source = self._open()
            return self._source.read(size)
        except Exception:
            self.close()
            raise

    def _open(self) -> Any:
        source = filesystem(self.url).open(
            self.url, "rb", block_size=_BLOCK_BYTES, cache_type="readahead"
        )
        if self._position and source.seekable():
            source.seek(self._position)
        elif self._position:  # the server does not support range requests
            source.read(self._position)
        return source

    def close(self) -> None:
        source, self._source = self._source, None
        with suppress(Exception):
            if source is not None:
                source.close()


class TarStream:
    """Reads the bytes of a tar in order, and checks whether the tar is complete.

    Call `check_complete` after reading everything.
    """

    # `tarfile` silently takes a damaged header for the end of the tar, so this class
    # parses the headers too.

    def __init__(self, name: str, policy: RetryPolicy | None = None) -> None:
        self._source: ByteSource
        if scheme_of(name):
            self.name, self._source = redact(name), _RemoteFile(name, policy or RetryPolicy())
        else:
            self.name, self._source = name, open(name, "rb")  # noqa: SIM115
        self._received = self._header = 0  # bytes read; offset of the next header
        self._tail = b""
        self._ended = False
        self._fault: str | None = None

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._follow(data)
        return data

    def close(self) -> None:
        self._source.close()

    def check_complete(self) -> None:
        """Raise UserError unless all members and the empty end block were read."""
        if self._fault is None and self._ended:
            return
        offset = min(self._header, self._received)
        fault = self._fault or f"is damaged or cut short at byte {offset}: restore it"
        raise UserError(f"{self.name} {fault}, or leave it out of the pattern")

    def _follow(self, data: bytes) -> None:
        """Parse the tar headers that are complete now that `data` has been read."""
        buffer, offset = self._tail + data, self._received - len(self._tail)
        self._received += len(data)
        while (
            not self._ended and self._fault is None and self._header + TAR_BLOCK <= self._received
        ):
            start = self._header - offset
            self._parse_header(buffer[start : start + TAR_BLOCK])
        self._tail = buffer[max(self._header - offset, 0) :] if not self._ended else b""

    def _parse_header(self, block: bytes) -> None:
        """Parse a tar header of 512 bytes and find the offset of the next header."""
        if block == bytes(TAR_BLOCK):  # not a header but the end of the tar
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:  # `check_complete` raises the fault
            if self._header == 0 and block.startswith(_COMPRESSED):
                self._fault = "is compressed: decompress it"
            else:
                self._fault = f"is damaged or cut short at byte {self._header}: restore it"
            return
        blocks = 0 if info.type in _NO_CONTENT else -(-info.size // TAR_BLOCK)
        self._header += TAR_BLOCK * (1 + blocks)


def stored_sample(members: Mapping[str, Any], size: int, fit: str = "crop") -> np.ndarray | None:
    """Convert a sample of a tar to the stored Lab format: (3, size, size).

    `members` maps the extensions of the sample's files to their content: a `lab.npy`,
    uint8 or float16, or an image, which is resized as `fit` says. Returns None if there
    is neither. Raises UndecodableError if the file is damaged or a `lab.npy` has
    another size.
    """
    if MEMBER in members:
        return _from_array(members[MEMBER], size)
    for name, content in members.items():
        if name.rpartition(".")[2] in IMAGES and not name.startswith("__"):
            return _from_image(content, size, fit)
    return None


def _from_array(content: bytes, size: int) -> np.ndarray:
    try:
        stored = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors on damaged headers
        raise UndecodableError("unreadable", f"no .npy array ({error})") from None
    if stored.shape != (3, size, size) or str(stored.dtype) not in DTYPES:
        expected = f"expected {' or '.join(DTYPES)} (3, {size}, {size})"
        raise UndecodableError(
            "another size", f"{MEMBER} has {stored.dtype} {stored.shape}, {expected}"
        )
    return stored


def _from_image(content: bytes, size: int, fit: str) -> np.ndarray:
    image = decode_reduced(open_image(content), size)
    return pack(rgb_to_lab(np.asarray(fit_image(image, size, fit))))
