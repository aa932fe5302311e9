"""A folder of brought files that stays below a size, shared by the processes of a machine; the least recently used go.

CACHE/CACHEDIR.TAG        says that this folder is a cache: backups leave it out, and we delete nothing elsewhere
CACHE/.lock               held for the moment in which room is made
CACHE/<key>/<file>        a whole file; when it was last used is its modification time
CACHE/<key>/.<file>.lock  held by whoever brings that file, and let go however that process ends
CACHE/<key>/.<file>.<bytes>.part   what has come of it; it takes room of <bytes> from the start
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
from shards.files import write_atomic

TAG = "CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/
_KEY = re.compile(r"[0-9a-f]{16}")
_PART = re.compile(r"\.(.+)\.(\d+)\.part")
_LOCK = re.compile(r"\.(.+)\.lock")


class _File(NamedTuple):
    used: float
    path: Path
    bytes: int
    whole: bool


class Cache:
    """At most `max_bytes` of files in `folder`, which is made if it is not there.

    Whoever opens a file does it at once: another process may drop it later. What is mapped or open stays readable.
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
        """Where the file `name` is, brought by `fill(path)` if it is not here.

        `key` is sixteen hexadecimal digits; names with slashes do not make folders. A file of another length than
        `bytes` is brought again. While another process brings it, wait for that, or return None if `wait` is False.
        """
        assert _KEY.fullmatch(key), key
        self._prepare()
        path = self.folder / key / _plain(name)
        path.parent.mkdir(exist_ok=True)
        while not _use(path, bytes):
            with _turn(path.with_name(f".{path.name}.lock"), wait) as mine:
                if not mine:
                    return None
                if not path.exists():  # else it was brought while we waited
                    self._bring(path, name, fill, bytes)
                    return path
        return path

    def _bring(
        self, path: Path, name: str, fill: Callable[[Path], None], bytes: int | None
    ) -> None:
        part = path.with_name(f".{path.name}.{bytes or 0}.part")
        try:
            self._check_fits(name, bytes or 0)
            self._take_room(part, bytes or 0)
            fill(part)
            _sync(part)
            if bytes is None:
                self._check_fits(name, part.stat().st_size)
                with self._locked():
                    self._make_room(0)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _take_room(self, part: Path, bytes: int) -> None:
        """Reserve room for a file, after others have brought theirs if need be."""
        while True:
            with self._locked():
                if self._make_room(bytes):
                    part.touch()
                    return
            time.sleep(0.05)  # what others bring can be dropped once it is whole

    def _check_fits(self, name: str, bytes: int) -> None:
        if bytes > self.max_bytes:
            raise UserError(
                f"{name} has {bytes} bytes, the cache {self.folder} may hold {self.max_bytes}: give it a larger size"
            )

    def _make_room(self, bytes: int) -> bool:
        """Drop the least recently used files until `bytes` more fit; whether they do."""
        self._sweep()
        files = sorted(self._files())
        excess = sum(file.bytes for file in files) + bytes - self.max_bytes
        for file in files:
            if excess <= 0:
                break
            if file.whole:
                # Linux keeps what other processes have mapped or open until they close it; only the name goes.
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
                found = entry.stat()
                claimed = int(part[2]) if part else 0
                yield _File(
                    found.st_mtime,
                    Path(entry.path),
                    max(found.st_size, claimed),
                    entry.name[0] != ".",
                )

    def _sweep(self) -> None:
        """Remove what processes left that were killed: parts and locks whose lock nobody holds."""
        for folder in self._folders():
            names = [entry.name for entry in os.scandir(folder)]
            for lock in filter(None, map(_LOCK.fullmatch, names)):
                parts = [
                    part[0] for part in map(_PART.fullmatch, names) if part and part[1] == lock[1]
                ]
                with _turn(folder / lock[0], wait=False) as dead:
                    for name in parts if dead else ():
                        (folder / name).unlink(missing_ok=True)

    def _prepare(self) -> None:
        """Make the folder if need be, refuse one that is no cache of ours, and clear away what was left."""
        if self._ready:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / TAG
        if not tag.is_file() and any(
            not path.name.startswith((".", TAG)) for path in self.folder.iterdir()
        ):
            raise UserError(
                f"{self.folder} holds other things than a cache: give --cache an empty or a new folder"
            )
        with self._locked():
            if not tag.is_file():
                write_atomic(
                    tag,
                    _SIGNATURE
                    + b"\n# Shards brought by colortrain; delete it whenever nothing trains.\n",
                )
            self._make_room(0)
        self._ready = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / ".lock", "ab") as held:
            _flock(held, wait=True)
            yield


def _plain(name: str) -> str:
    """A file name without slashes or a leading dot, for any relative path."""
    plain = quote(name, safe="")
    return plain.replace(".", "%2E", 1) if plain.startswith(".") else plain


@contextmanager
def _turn(path: Path, wait: bool) -> Iterator[bool]:
    """Whether it is ours to bring the file that this lock is for, which nobody else does meanwhile."""
    held = _hold(path, wait)
    try:
        yield held is not None
    finally:
        if held is not None:
            path.unlink(
                missing_ok=True
            )  # ours as long as we hold it: those who wait notice that it is gone
            held.close()


def _use(path: Path, bytes: int | None) -> bool:
    """Whether the file is here, which makes it the most recently used."""
    try:
        if bytes is not None and path.stat().st_size != bytes:
            path.unlink()  # a disk that lost something; never our own doing
            return False
        os.utime(path)
        return True
    except FileNotFoundError:
        return False


def _hold(path: Path, wait: bool) -> IO[bytes] | None:
    """The lock file, locked, and certainly the one that has this name; None if another has it and `wait` is False."""
    while True:
        held = open(path, "ab")  # noqa: SIM115 - held open on purpose
        if not _flock(held, wait):
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(held.fileno())):
                return held
        held.close()  # its holder removed it while we waited


def _flock(held: IO[bytes], wait: bool) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    except BlockingIOError:
        held.close()
        return False
    except OSError as error:
        held.close()
        folder = Path(held.name).parent
        raise UserError(
            f"{folder} has no file locks ({error.strerror}): give --cache a folder on a local disk"
        ) from None


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
