"""File locks, also on network file systems that may not support them.

A lock file contains a line about the process that holds its exclusive lock, and is
empty otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import IO

from shards.errors import UserError

# Some cluster file systems are mounted without support for locks (Lustre without the
# option flock, NFS without a lock server). 524 is Linux's internal ENOTSUPP, which some
# file systems return by mistake.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)
_TRIES = 3  # attempts to open a lock file that the server of NFS reports as stale
_MAX_HOLDER_BYTES = 300


def locks_unsupported(error: OSError) -> bool:
    """Return whether an error of `flock` means that the file system has no locks."""
    return error.errno in _UNSUPPORTED


class HeldLock:
    """A lock that this process holds, until `close` or the end of a `with` block."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Replace the content of the lock file."""
        # The lock works without the text, for instance if the disk is full.
        with suppress(OSError):
            os.ftruncate(self.stream.fileno(), 0)
            os.write(self.stream.fileno(), text.encode())

    def close(self) -> None:
        """End the lock."""
        if not self.stream.closed:
            self.write("")
            self.stream.close()

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def lock(path: Path, message: str, *, shared: bool = False, risk: str = "") -> HeldLock:
    """Lock the file `path`, exclusively or `shared`.

    Raises UserError, whose text begins with `message`, if another process holds the
    lock. Where the file system does not support locks, prints one warning, which ends
    with the text `risk`, and continues.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        # Network file systems allow a shared lock only on a file that is open for
        # reading, and an exclusive one only if it is open for writing.
        held = open(path, "a+b")  # noqa: SIM115 - held open on purpose
        try:
            fcntl.flock(held, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise UserError(message + _advice(path)) from None
        except OSError as error:
            if error.errno == errno.ESTALE and attempt < _TRIES - 1:
                held.close()  # a new file may have this name by now
                continue
            if not locks_unsupported(error):
                held.close()
                error.filename = str(path)
                raise
            warn_unsupported(path, error.strerror or str(error), risk or _RISK)
        acquired = HeldLock(held)
        acquired.write("" if shared else _description())
        return acquired
    raise AssertionError("unreachable")


_RISK = "make sure that no other process uses this folder"


@cache  # once per file
def warn_unsupported(path: Path, reason: str, risk: str) -> None:
    """Print a warning that the file system does not support locks; `risk` is advice."""
    print(f"{path} cannot be locked ({reason}): {risk}", file=sys.stderr)


def holder_of(path: Path) -> str:
    """Return the line in a lock file about the process that holds it, or ""."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(_MAX_HOLDER_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return text if text.isprintable() else ""


def _advice(path: Path) -> str:
    holder = holder_of(path)
    if not holder:
        return ""
    # A network file system may keep the lock of a machine that was lost.
    return f" (locked by {holder}; if that process has ended, delete {path})"


def _description() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    restarts = os.environ.get("SLURM_RESTART_COUNT")
    started = f" after {restarts} restarts" if restarts else ""
    where = f", SLURM job {job}{started}" if job else ""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {os.uname().nodename}{where}, since {now} UTC"
