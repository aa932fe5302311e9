"""The lock on a run folder, and how a lock of a lost machine is recognised.

The process that trains keeps RUN/.lock locked, and updates its modification time
regularly. A file system may keep the lock of a machine that was lost, but not update
that time.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from colortrain.runs.layout import lock_file
from shards.errors import UserError
from shards.locks import HeldLock, holder_of, lock

_UPDATE_INTERVAL = 20.0  # seconds
STALE_AFTER = 300.0  # seconds without an update


class RunLock:
    """Holds the lock on a run folder, from `acquire` to the end of a `with` block."""

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, lock_file(run)
        self._held: HeldLock | None = None
        self._holder = ""
        self._released = threading.Event()

    def acquire(self) -> None:
        """Lock RUN/.lock; raises UserError if another process holds the lock."""
        message = (
            f"{self.run} is being trained by another process: wait for it, or choose another --run"
        )
        self._held = lock(self.path, message)
        self._holder = holder_of(self.path)
        threading.Thread(target=self._update, args=(self._held,), daemon=True).start()

    def check(self) -> None:
        """Raise UserError if another process has replaced the lock file with its own.

        It does so when this process, or its machine, was suspended for so long that it
        was taken for lost.
        """
        found = holder_of(self.path) if self._held else ""
        # A file that was deleted, or that cannot be read now, is no proof.
        if found not in ("", self._holder):
            raise UserError(
                f"{self.run} has been taken over by {found}: this process was taken for lost, "
                "and stops without saving"
            )

    def _update(self, held: HeldLock) -> None:
        while not self._released.wait(_UPDATE_INTERVAL):
            with suppress(OSError, ValueError):  # ValueError: just closed
                os.utime(held.stream.fileno())

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *error: object) -> None:
        self._released.set()
        if self._held:
            self._held.close()


class LockWatch:
    """Watches the lock on a run folder that another process holds."""

    def __init__(self, run: Path) -> None:
        self.path = lock_file(run)
        self._seen: int | None = None
        self._since = time.monotonic()

    def is_stale(self) -> bool:
        """Return whether the lock file was not updated for `STALE_AFTER` seconds.

        Only updates between calls of this method count, because machines' clocks
        differ. False for a file without a line about its holder, which other versions
        do not update.
        """
        updated = _modified(self.path)
        if updated != self._seen:
            self._seen, self._since = updated, time.monotonic()
        return time.monotonic() - self._since > STALE_AFTER and bool(holder_of(self.path))


def _modified(path: Path) -> int | None:
    try:
        with open(path, "rb") as stream:  # NFS asks the server when a file is opened
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return None
