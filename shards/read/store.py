"""Where a shard set lies: a folder, or a URL whose files are brought into a cache when first needed.

Readers ask for the local path of a file, never for the folder itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from shards.errors import UserError
from shards.format.manifest import MANIFEST, Shard
from shards.read.cache import Cache
from shards.read.remote import Patience, fetch, filesystem, joined, read, scheme_of, shown


class Store(Protocol):
    """The files of one shard set, wherever they are; threads may share it."""

    location: str  # as the user wrote it, for messages

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        """Where the file lies on this machine, which it may have to be brought to first.

        Open it at once, and ask again if it is gone: a small cache drops it for others' files. What is brought is
        checked against `bytes` and `sha256` where given; what was here is not. A file that a folder lacks gets a path
        all the same: opening it says so; one that a URL lacks is a `UserError`.
        """
        ...

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Bring these in the background, instead of those of an earlier call that are still to come."""
        ...


class Folder:
    """A shard set on a file system of this machine, local or shared."""

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self.root = Path(location)

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        return self.root / relative

    def prefetch(self, shards: Iterable[Shard]) -> None:
        pass


class Remote:
    """A shard set at a URL that fsspec understands.

    The manifest is fetched again by every `Remote`; what it names is kept under a key of the address and the
    manifest's content, so that files of a set that has changed are never mixed with older ones.
    """

    def __init__(self, location: str, cache: Cache, patience: Patience | None = None) -> None:
        self.location = shown(location)
        self.cache, self.patience = cache, patience or Patience()
        self._url = location
        self._opening = threading.Lock()
        self._manifest: bytes | None = None
        self._wanted: deque[Shard] = deque()
        self._thread: threading.Thread | None = None

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        found = self._bring(relative, bytes, sha256)
        assert found
        return found

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """As `Store`; at most half the cache, since what is read now is in it too.

        What another process is bringing is passed over, so that the processes of a machine share the list out. A
        failure is left to the reader, who asks for the file again.
        """
        with self._opening:
            self._wanted = _first(shards, self.cache.max_bytes // 2)
            if self._wanted and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._fetch_ahead, daemon=True)
                self._thread.start()

    def _fetch_ahead(self) -> None:
        while shard := self._next_wanted():
            with suppress(Exception):
                self._bring(shard.path, shard.bytes, shard.sha256, wait=False)

    def _next_wanted(self) -> Shard | None:
        with self._opening:
            if self._wanted:
                return self._wanted.popleft()
            self._thread = None  # under the lock: a list that comes now gets a thread of its own
            return None

    def _bring(
        self, relative: str, bytes: int | None, sha256: str | None, wait: bool = True
    ) -> Path | None:
        manifest = self._open()

        def fill(path: Path) -> None:
            if relative == MANIFEST:
                path.write_bytes(manifest)
            else:
                fetch(joined(self._url, relative), path, self.patience, bytes=bytes, sha256=sha256)

        return self.cache.get(self._key(manifest), relative, fill, bytes=bytes, wait=wait)

    def _open(self) -> bytes:
        """The manifest's content, fetched once."""
        with self._opening:
            if self._manifest is None:
                self._manifest = read(joined(self._url, MANIFEST), self.patience)
            return self._manifest

    def _key(self, manifest: bytes) -> str:
        """Sixteen hexadecimal digits that name this generation of the set at this address."""
        return hashlib.sha256(self.location.rstrip("/").encode() + b"\0" + manifest).hexdigest()[
            :16
        ]


def _first(shards: Iterable[Shard], most: int) -> deque[Shard]:
    """The first shards that have no more than `most` bytes together."""
    chosen: deque[Shard] = deque()
    for shard in shards:
        most -= shard.bytes
        if most < 0:
            break
        chosen.append(shard)
    return chosen


def open_store(location: str | Path, cache: Cache | None = None) -> Store:
    """The store at a path or a URL; raises `UserError` for a URL without a cache, or one that fsspec cannot open."""
    scheme = scheme_of(str(location))
    if scheme is None:
        return Folder(location)
    if scheme == "file":
        return Folder(unquote(urlsplit(str(location)).path))
    filesystem(str(location))  # an unknown scheme and a missing package are said now
    if cache is None:
        raise UserError(
            f"{shown(str(location))} is not on this machine: give --cache DIR, a folder to bring shards to"
        )
    return Remote(str(location), cache)
