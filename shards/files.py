"""Files that are either whole or not there: temporary name, fsync, rename, fsync of the folder; and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from shards.errors import UserError

_NO_LOCKS = (
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
)  # some cluster file systems are mounted without


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour for writing; it takes the name `path` only if the block ends well.

    A link is followed, and a pipe or a device is written to as it is: neither is replaced by a plain file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The host too: machines that share a file system have the same process numbers.
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # "no space left" should say where
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with open_atomic(path) as stream:
        stream.write(data)


def lock(path: Path, message: str) -> IO[bytes]:
    """Hold the lock file `path` as long as the file returned stays open, which ends with the process however it ends.

    Raises `UserError(message)` if another process holds it; where the file system has no locks, says so and goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = open(path, "ab")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise UserError(message) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            held.close()
            raise
        print(
            f"{path} cannot be locked ({error.strerror}): see that no second process works there",
            file=sys.stderr,
        )
    return held


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
