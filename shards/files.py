"""Atomic file writes, checksums, and the reading of untrusted files.

Paths that are read from untrusted files go through `path_below`, and untrusted files
are opened with `open_regular`.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import multiprocessing
import os
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from shards.errors import UserError

# Untrusted are the files of shard sets, parts of builds and checkpoints.

# Errors of fsync on a file system that does not support it, perhaps only for folders.
# PostgreSQL's fsync_fname also ignores EBADF, EINVAL and refusals to open a folder.
# 524 is Linux's internal ENOTSUPP, which some file systems return by mistake.
_FSYNC_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, 524)
_FOLDER_FSYNC_UNSUPPORTED = (*_FSYNC_UNSUPPORTED, errno.EBADF)
_FOLDER_NOT_OPENED = (errno.EACCES, errno.EISDIR)
_LONG_NAME = 64  # bytes; with host name and process ID also below eCryptfs's limit of 143


def fsync_folder(folder: Path) -> None:
    """Flush `folder` to disk, so that renames inside it survive a power failure.

    Where the file system does not support this, prints one warning and continues.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _FOLDER_NOT_OPENED:
            raise
        _warn_not_flushed(folder, error.strerror)
        return
    try:
        _flush(descriptor, folder, _FOLDER_FSYNC_UNSUPPORTED)
    finally:
        os.close(descriptor)


def fsync_file(stream: IO[bytes], path: Path) -> None:
    """Flush the written file `path`, open as `stream`, to disk.

    Where the file system does not support this, prints one warning and continues.
    """
    stream.flush()
    _flush(stream.fileno(), path.parent, _FSYNC_UNSUPPORTED)


def _flush(descriptor: int, folder: Path, unsupported: Collection[int]) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in unsupported:
            raise
        _warn_not_flushed(folder, error.strerror)


_warned = False


def _warn_not_flushed(folder: Path, reason: str | None) -> None:
    """Warn once, and only in the main process, which writes to the same folders."""
    global _warned
    if not _warned and multiprocessing.parent_process() is None:
        print(
            f"warning: the file system of {folder} cannot flush its folders or files to disk "
            f"({reason}): what was written last may be lost or damaged if the machine that "
            "stores it loses power",
            file=sys.stderr,
        )
    _warned = True


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which becomes `path` if the `with` block succeeds.

    If `path` is a symbolic link, its target is replaced; a pipe or a device is written
    to directly.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            fsync_file(stream, path)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # so that "no space left" names the file
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_temporary_prefix(path)}{os.getpid()}.tmp")


def _temporary_prefix(path: Path) -> str:
    """Return the beginning of the names of all temporary files for `path`."""
    name = path.name
    # File systems allow names of 255 bytes.
    if len(os.fsencode(name)) > _LONG_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    # With the host name, because machines that share a file system can have equal
    # process IDs. The process ID follows.
    return f".{name}.{os.uname().nodename}."


def remove_stale_temporaries(path: Path) -> None:
    """Remove temporary files for `path` that killed processes of this machine left."""
    prefix = _temporary_prefix(path)
    for each in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        process = each.name[len(prefix) : -len(".tmp")]
        if process.isdecimal() and not _is_running(int(process)):
            each.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # it belongs to another user; no valid number
        return True
    return True


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` completely or not at all."""
    with open_atomic(path) as stream:
        stream.write(data)


def check_utf8(path: Path) -> None:
    """Raise UserError unless a path is UTF-8, which torch requires."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"the path {path} is not UTF-8: rename the folder") from None


class IrregularFileError(UserError, OSError):
    """A pipe, a device or a folder was found where a regular file is required."""


def is_path_below(relative: str) -> bool:
    """Return whether a relative path stays inside its folder, if links are ignored."""
    parts = relative.split("/")
    return bool(parts[0]) and not {"", ".", ".."}.intersection(parts) and "\0" not in relative


def path_below(folder: Path, relative: str, *, writing: bool = False) -> Path:
    """Return `folder/relative`, where `relative` was read from an untrusted file.

    Set `writing` for a file that will be written or deleted. Raises UserError if
    `relative` leads out of `folder`; with `writing`, also if it does so through a link.
    """
    if not is_path_below(relative):
        raise UserError(f"{folder}: the path {relative!r}, read from a file in it, leads out of it")
    path = folder / relative
    # For reading, links may lead out, because the owner may have moved files to another
    # disk.
    if writing and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"{path} leads out of {folder} through a link: replace the link with what it points to"
        )
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises IrregularFileError for a pipe, a device or a folder.
    """
    # Opening a pipe would wait for a writer, and a device may never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(f"{path} is not a regular file: delete or restore it")
    return open(descriptor, "rb")


class RandomAccessFile:
    """A regular file open for reading at any position; threads may share it.

    It is closed when nothing refers to it any more. Raises IrregularFileError for a
    pipe, a device or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = open_regular(path)
        self._descriptor = self._stream.fileno()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            with suppress(OSError):  # a file system that is gone
                self._stream.close()

    def size(self) -> int:
        """Return the current size of the file in bytes."""
        return os.fstat(self._descriptor).st_size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer`, a view of bytes, from byte `offset` of the file on.

        Returns the number of bytes read, which is less than `len(buffer)` if the file
        ends before. Raises OSError, with the file's name, if the file system fails.
        """
        try:
            read = os.preadv(self._descriptor, (buffer,), offset)
            more = read
            while more and read < len(buffer):
                more = os.preadv(self._descriptor, (buffer[read:],), offset + read)
                read += more
        except OSError as error:
            error.filename = str(self.path)
            raise
        return read


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises IrregularFileError for anything else, and UserError for more than `max_bytes`
    bytes.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise UserError(
                f"{path} has {size:,} bytes, more than the {max_bytes:,} allowed: restore it"
            )
        return stream.read()


def check_types(instance: Any) -> None:
    """Raise TypeError if an int, str or bool field of a dataclass has another type."""
    kind: Any = type(instance)
    for name, expected in _typed_fields(kind):
        value = getattr(instance, name)
        if type(value) is not expected:
            raise TypeError(f"{name} is {value!r:.40}, expected {expected.__name__}")


@cache
def _typed_fields(kind: Any) -> tuple[tuple[str, type], ...]:
    types = {each.__name__: each for each in (int, str, bool)}
    return tuple((each.name, types[each.type]) for each in fields(kind) if each.type in types)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises IrregularFileError for anything but a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
