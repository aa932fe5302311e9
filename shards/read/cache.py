"""A size-limited LRU cache of downloaded files, shared by the processes of a machine.

CACHE/CACHEDIR.TAG        marks the folder as a cache
CACHE/.lock               held while files are evicted
CACHE/<key>/<file>        a complete file; its modification time is its last use
CACHE/<key>/.<file>.lock  held by the process that downloads the file
CACHE/<key>/.<file>.<bytes>.part
                          a partial download of a file that will have <bytes> bytes

CACHE is the folder given by --cache. <key> is 16 hexadecimal digits, one key per shard
set.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

from shards.errors import UserError
from shards.files import fsync_file, write_atomic
from shards.locks import locks_unsupported

TAG = "CACHEDIR.TAG"  # backups exclude the folder; only files in such a folder are deleted
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/
_KEY = re.compile(r"[0-9a-f]{16}")
_PART = re.compile(r"\.(.+)\.(\d+)\.part")
_LOCK = re.compile(r"\.(.+)\.lock")


class _File(NamedTuple):
    used: float
    path: Path
    bytes: int
    complete: bool


class Cache:
    """A cache in `folder` that keeps at most `max_bytes` bytes of downloaded files.

    Open a file right after `get` returns its path: another process may evict it later.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._ready = False

    def get(
        self,
        key: str,
        name: str,
        fill: Callable[[Path], None],
        *,
        bytes: int | None = None,
        wait: bool = True,
    ) -> Path | None:
        """Return the path of a cached file, which `fill(path)` downloads if missing.

        `key`, 16 hexadecimal digits, and `name` identify the file. `bytes` is its size
        if known: a cached file of another size is downloaded again. While another
        process downloads the file, waits, or returns None if `wait` is False. Raises
        UserError if the folder is not a cache or does not support file locks, or if the
        file is larger than the cache.
        """
        self._prepare()
        path = self._path(key, name)
        path.parent.mkdir(exist_ok=True)
        while not _mark_used(path, bytes):
            with _file_lock(_lock_path(path), wait) as acquired:
                if not acquired:
                    return None
                if not path.exists():  # else another process downloaded it meanwhile
                    self._download(path, name, fill, bytes)
                    return path
        return path

    def discard(self, key: str, name: str, is_intact: Callable[[Path], bool]) -> None:
        """Delete the cached file `name` if it exists and `is_intact(path)` is False."""
        path = self._path(key, name)
        # Under the lock, so that no other process replaces it meanwhile.
        with _file_lock(_lock_path(path), wait=True), suppress(FileNotFoundError):
            if not is_intact(path):
                path.unlink()

    def _path(self, key: str, name: str) -> Path:
        assert _KEY.fullmatch(key), key
        return self.folder / key / _escape(name)

    def _download(
        self, path: Path, name: str, fill: Callable[[Path], None], bytes: int | None
    ) -> None:
        part = path.with_name(f".{path.name}.{bytes or 0}.part")
        try:
            self._check_fits(name, bytes or 0)
            self._reserve(part, bytes or 0)
            fill(part)
            _sync(part)
            if bytes is None:
                self._check_fits(name, part.stat().st_size)
                with self._locked():
                    self._evict(0)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _reserve(self, part: Path, bytes: int) -> None:
        """Wait until the cache has space for the download `part`, and reserve it."""
        while True:
            with self._locked():
                # There is no space while too many downloads of other processes are
                # incomplete.
                if self._evict(bytes):
                    part.touch()
                    return
            time.sleep(0.05)  # other downloads can be evicted once they are complete

    def _check_fits(self, name: str, bytes: int) -> None:
        if bytes > self.max_bytes:
            raise UserError(
                f"{name} has {bytes / 1e9:.3g} GB, but the cache {self.folder} is limited to "
                f"{self.max_bytes / 1e9:.3g} GB: increase --cache-size"
            )

    def _evict(self, bytes: int) -> bool:
        """Evict least recently used files for `bytes` more; return whether they fit."""
        self._remove_stale()
        files = sorted(self._files())
        excess = sum(file.bytes for file in files) + bytes - self.max_bytes
        for file in files:
            if excess <= 0:
                break
            if file.complete:  # incomplete downloads are never evicted
                # Linux keeps the content for processes that have it open.
                file.path.unlink(missing_ok=True)
                excess -= file.bytes
        return excess <= 0

    def _folders(self) -> list[Path]:
        return [
            Path(entry.path)
            for entry in os.scandir(self.folder)
            if entry.is_dir() and _KEY.fullmatch(entry.name)
        ]

    def _files(self) -> Iterator[_File]:
        for entry in (entry for folder in self._folders() for entry in os.scandir(folder)):
            part = _PART.fullmatch(entry.name)
            with suppress(FileNotFoundError):
                status = entry.stat()
                reserved = int(part[2]) if part else 0
                yield _File(
                    status.st_mtime,
                    Path(entry.path),
                    max(status.st_size, reserved),  # from the start, a part has its final size
                    entry.name[0] != ".",
                )

    def _remove_stale(self) -> None:
        """Delete the lock files and partial downloads of processes that were killed."""
        for folder in self._folders():
            names = [entry.name for entry in os.scandir(folder)]
            for lock in filter(None, map(_LOCK.fullmatch, names)):
                parts = [
                    part[0] for part in map(_PART.fullmatch, names) if part and part[1] == lock[1]
                ]
                with _file_lock(folder / lock[0], wait=False) as stale:
                    for name in parts if stale else ():
                        (folder / name).unlink(missing_ok=True)

    def _prepare(self) -> None:
        """On the first call, create the cache folder and evict files above the limit.

        Raises UserError if the folder contains files but is not a cache.
        """
        if self._ready:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / TAG
        if not tag.is_file() and any(
            not path.name.startswith((".", TAG)) for path in self.folder.iterdir()
        ):
            raise UserError(
                f"{self.folder} contains files and is not a cache: "
                "give --cache a new or an empty folder"
            )
        with self._locked():
            if not tag.is_file():
                comment = b"# Shards downloaded by colortrain. Delete it when no training runs."
                write_atomic(tag, _SIGNATURE + b"\n" + comment + b"\n")
            self._evict(0)
        self._ready = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / ".lock", "ab") as stream:
            _flock(stream, wait=True)
            yield


def _escape(name: str) -> str:
    """Escape a relative path to one file name that does not start with a dot."""
    escaped = quote(name, safe="")
    return escaped.replace(".", "%2E", 1) if escaped.startswith(".") else escaped


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _file_lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path` during a `with` block; yield whether this succeeded."""
    stream = _acquire(path, wait)
    try:
        yield stream is not None
    finally:
        if stream is not None:
            # Safe while the lock is held: waiting processes notice the removal.
            path.unlink(missing_ok=True)
            stream.close()


def _mark_used(path: Path, bytes: int | None) -> bool:
    """Set a cached file's time of last use; return False if the file is missing."""
    try:
        if bytes is not None and path.stat().st_size != bytes:
            path.unlink()  # the file system lost data: downloads are renamed when complete
            return False
        os.utime(path)
        return True
    except FileNotFoundError:
        return False


def _acquire(path: Path, wait: bool) -> IO[bytes] | None:
    """Lock the file `path`, waiting if `wait`; return it open, or None if locked."""
    while True:
        stream = open(path, "ab")  # noqa: SIM115 - kept open to hold the lock
        # The system releases the lock when the process exits for any reason.
        if not _flock(stream, wait):
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
        stream.close()  # the previous holder removed the file meanwhile


def _flock(stream: IO[bytes], wait: bool) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    except BlockingIOError:
        stream.close()
        return False
    except OSError as error:
        stream.close()
        if not locks_unsupported(error):
            error.filename = stream.name
            raise
        folder = Path(stream.name).parent
        raise UserError(
            f"{folder} does not support file locks ({error.strerror}): "
            "give --cache a folder on a local disk"
        ) from None


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        fsync_file(stream, path)
