"""Atomic file writes, file locks, checksums, and the reading of untrusted files.

Paths that are read from untrusted files go through `path_below`, and untrusted files
are opened with `open_regular`.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from shards.errors import UserError

# Untrusted are the files of shard sets, parts of builds and checkpoints.

# Some cluster file systems are mounted without support for locks.
_LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LONG_NAME = 64  # bytes; with host name and process ID also below eCryptfs's limit of 143


def fsync_folder(folder: Path) -> None:
    """Flush `folder` to disk, so that renames inside it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            stream.flush()
            os.fsync(stream.fileno())
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


def lock(path: Path, message: str) -> IO[bytes]:
    """Lock the file `path` exclusively and return it open.

    Closing the returned file ends the lock. Raises `UserError(message)` if another
    process holds the lock. Where the file system does not support locks, prints a
    warning and continues.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = open(path, "ab")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise UserError(message) from None
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            held.close()
            raise
        print(
            f"{path} cannot be locked ({error.strerror}): make sure that no other process uses "
            "this folder",
            file=sys.stderr,
        )
    return held


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
