"""Tars that have no index, read once from front to back: which ones a pattern names, their bytes, their pictures."""

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
from shards.read.remote import Patience, filesystem, patiently, scheme_of, shown
from shards.sources.decode import UndecodableError, fit_image, open_image, reduce_jpeg, to_rgb

IMAGES = ("jpg", "jpeg", "png", "webp")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_NO_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_PIECE = 8 << 20


class Source(Protocol):
    """Bytes from front to back."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


def list_tars(pattern: str) -> tuple[str, ...]:
    """The paths or URLs that a pattern with braces and wildcards names, sorted; raises `UserError` if there are none.

    >>> list_tars("s3://bucket/set/{000000..000099}.tar")
    """
    try:
        names = [name for each in braceexpand(pattern) for name in _expanded(each)]
    except ValueError:
        raise UserError(
            f"{pattern}: braces do not match: write PATH/{{000000..000099}}.tar or PATH/*.tar"
        ) from None
    if not names:
        raise UserError(
            f"{pattern} names no files: write PATH/{{000000..000099}}.tar or 'PATH/*.tar', in quotes"
        )
    return tuple(sorted(set(names)))


def _expanded(name: str) -> list[str]:
    scheme = scheme_of(name)
    if scheme is None:
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207 - the pattern is the user's
        if not glob.has_magic(name) and not Path(name).is_file():
            raise UserError(f"no file {name}: check the path, or the braces of the pattern")
        return found
    system = filesystem(name)
    if "*" not in name:
        return [name]
    found = patiently(name, lambda: system.glob(name), Patience())
    return [each if scheme_of(each) else f"{scheme}://{each}" for each in found]


class _Far:
    """The bytes at a URL; after a failure it is opened again where reading stopped."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url, patience
        self._place = 0
        self._source: Any = None

    def read(self, size: int = -1, /) -> bytes:
        piece = patiently(self.url, lambda: self._try(size), self.patience)
        self._place += len(piece)
        return piece

    def _try(self, size: int) -> bytes:
        try:
            if self._source is None:
                self._source = self._opened()
            return self._source.read(size)
        except Exception:
            self.close()
            raise

    def _opened(self) -> Any:
        source = filesystem(self.url).open(
            self.url, "rb", block_size=_PIECE, cache_type="readahead"
        )
        if self._place and source.seekable():
            source.seek(self._place)
        elif self._place:  # a server without ranges
            source.read(self._place)
        return source

    def close(self) -> None:
        source, self._source = self._source, None
        with suppress(Exception):
            if source is not None:
                source.close()


class TarStream:
    """A tar's bytes from front to back; it follows the headers, so that it knows in the end whether it was whole.

    `tarfile` takes a damaged header for the end, and says nothing: `check_complete` does.
    """

    def __init__(self, name: str, patience: Patience | None = None) -> None:
        self.name = shown(name) if scheme_of(name) else name
        far = scheme_of(name) is not None
        self._source: Source = _Far(name, patience or Patience()) if far else open(name, "rb")  # noqa: SIM115
        self._came = self._header = 0  # bytes read; where the next header begins
        self._tail = b""
        self._ended = False
        self._fault: str | None = None

    def read(self, size: int = -1, /) -> bytes:
        piece = self._source.read(size)
        self._follow(piece)
        return piece

    def close(self) -> None:
        self._source.close()

    def check_complete(self) -> None:
        """Raise `UserError` unless all members were read, up to the empty block after the last."""
        if self._fault is None and self._ended:
            return
        fault = self._fault or f"is damaged or cut short at byte {min(self._header, self._came)}"
        raise UserError(f"{self.name} {fault}: restore it, or leave it out of the pattern")

    def _follow(self, piece: bytes) -> None:
        known, begins = self._tail + piece, self._came - len(self._tail)
        self._came += len(piece)
        while not self._ended and self._fault is None and self._header + TAR_BLOCK <= self._came:
            start = self._header - begins
            self._pass(known[start : start + TAR_BLOCK])
        self._tail = known[max(self._header - begins, 0) :] if not self._ended else b""

    def _pass(self, block: bytes) -> None:
        """Go on from one header to the next."""
        if block == bytes(TAR_BLOCK):
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            packed = self._header == 0 and block.startswith(_PACKED)
            self._fault = "is compressed, a plain tar is needed" if packed else None
            self._fault = self._fault or f"is damaged or cut short at byte {self._header}"
            return
        blocks = 0 if info.type in _NO_CONTENT else -(-info.size // TAR_BLOCK)
        self._header += TAR_BLOCK * (1 + blocks)


def stored_sample(members: Mapping[str, Any], size: int, fit: str = "crop") -> np.ndarray | None:
    """The packed Lab of a sample given as a tar's members, extension -> content: (3, size, size) uint8 or float16.

    None if it has neither a `lab.npy` nor an image; raises `UndecodableError` if what it has cannot be used.
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
    except Exception as error:  # numpy's parser fails in many ways on damaged headers
        raise UndecodableError("unreadable", f"no .npy array ({error})") from None
    if stored.shape != (3, size, size) or str(stored.dtype) not in DTYPES:
        wanted = f"needed is {' or '.join(DTYPES)} (3, {size}, {size})"
        raise UndecodableError(
            "another size", f"{MEMBER} holds {stored.dtype} {stored.shape}, {wanted}"
        )
    return stored


def _from_image(content: bytes, size: int, fit: str) -> np.ndarray:
    opened = open_image(content)
    reduce_jpeg(opened, size)
    return pack(rgb_to_lab(np.asarray(fit_image(to_rgb(opened), size, fit))))
