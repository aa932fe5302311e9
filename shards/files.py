"""Atomic file writes, file locks and checksums.

A file is written under a temporary name, flushed with fsync and renamed; then its
folder is flushed as well.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from shards.errors import UserError

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

    The temporary file is in the same folder. If `path` is a symbolic link, its target
    is replaced; a pipe or a device is written to directly.
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
    """Return the start of the temporary names of a file, up to the process ID.

    It contains the host name, because machines that share a file system can have equal
    process IDs. A long name is replaced by its hash: file systems allow 255 bytes.
    """
    name = path.name
    if len(os.fsencode(name)) > _LONG_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.{os.uname().nodename}."


def remove_stale_temporaries(path: Path) -> None:
    """Remove temporary files of `path` whose processes, on this machine, have ended."""
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


def lock(path: Path, message: str) -> IO[bytes]:
    """Lock the file `path` exclusively and return it open.

    The lock ends when the returned file is closed or the process ends. Raises
    `UserError(message)` if another process holds the lock. Where the file system does
    not support locks, prints a warning and continues.
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


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
