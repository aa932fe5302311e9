"""The storage of a shard set: a folder, or a URL whose files are cached."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from shards.errors import UserError
from shards.files import path_below
from shards.format.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Manifest,
    Shard,
    load_manifest,
    parse_manifest,
)
from shards.read.backends import filesystem, join_url, redact, scheme_of
from shards.read.cache import Cache
from shards.read.remote import RetryPolicy, fetch


class Store(Protocol):
    """The interface to the files of one shard set; threads may share an object."""

    location: str  # for messages

    def manifest(self) -> Manifest:
        """Return the manifest; raises UserError if it is missing or damaged."""
        ...

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        """Return the local path of the file `relative`, downloading it if necessary.

        Open the file right away, and call this again if it has been evicted from the
        cache. Downloads are checked against `bytes` and `sha256` if they are given.
        Raises UserError if a download fails.
        """
        ...

    def discard(self, relative: str, is_intact: Callable[[Path], bool]) -> bool:
        """Delete the downloaded copy of a file unless `is_intact(path)` returns True.

        Works once per file: returns True at the first call, False at later calls and
        for a local shard set. After True, call the method `path` again.
        """
        ...

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Download `shards` in the background; drop earlier ones that still wait."""
        ...


class Folder:
    """A shard set on a file system of this machine, local or shared."""

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self.root = Path(location)

    def manifest(self) -> Manifest:
        return load_manifest(self.root)

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        # If the file does not exist, opening it fails. Local files are not checked.
        return path_below(self.root, relative)

    def discard(self, relative: str, is_intact: Callable[[Path], bool]) -> bool:
        return False

    def prefetch(self, shards: Iterable[Shard]) -> None:
        pass


class Remote:
    """A shard set at a URL supported by fsspec, whose files are cached."""

    def __init__(self, location: str, cache: Cache, policy: RetryPolicy | None = None) -> None:
        self.location = redact(location)
        self.cache, self.policy = cache, policy or RetryPolicy()
        self._url = location
        self._opening = threading.Lock()
        self._manifest: bytes | None = None
        self._discarded: set[str] = set()
        self._pending: deque[Shard] = deque()
        self._thread: threading.Thread | None = None

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        path = self._fetch(relative, bytes, sha256)
        assert path
        return path

    def manifest(self) -> Manifest:
        return parse_manifest(self._open(), join_url(self.location, MANIFEST))

    def discard(self, relative: str, is_intact: Callable[[Path], bool]) -> bool:
        if relative in self._discarded:
            return False
        self._discarded.add(relative)
        self.cache.discard(self._key(self._open()), relative, is_intact)
        return True

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Download `shards` in the background, but no more than half the cache size."""
        with self._opening:
            # The other half of the cache is for files in use. Shards of earlier calls
            # whose download has not started are dropped.
            self._pending = _leading(shards, self.cache.max_bytes // 2)
            if self._pending and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._fetch_pending, daemon=True)
                self._thread.start()

    def _fetch_pending(self) -> None:
        while shard := self._next_pending():
            # Errors occur again when the file is read. Files that another process is
            # downloading are skipped, so that the processes of a machine divide the
            # work.
            with suppress(Exception):
                self._fetch(shard.path, shard.bytes, shard.sha256, wait=False)

    def _next_pending(self) -> Shard | None:
        with self._opening:
            if self._pending:
                return self._pending.popleft()
            self._thread = None  # under the lock, so that a later prefetch starts a new thread
            return None

    def _fetch(
        self, relative: str, bytes: int | None, sha256: str | None, wait: bool = True
    ) -> Path | None:
        def fill(path: Path) -> None:
            url, limit = join_url(self._url, relative), self.cache.max_bytes
            fetch(url, path, self.policy, max_bytes=limit, bytes=bytes, sha256=sha256)

        return self.cache.get(self._key(self._open()), relative, fill, bytes=bytes, wait=wait)

    def _open(self) -> bytes:
        """Return the content of manifest.json, downloaded on the first call."""
        with self._opening:
            if self._manifest is None:
                self._manifest = self._download_manifest()
            return self._manifest

    def _download_manifest(self) -> bytes:
        content = b""

        def fill(path: Path) -> None:
            nonlocal content
            url = join_url(self._url, MANIFEST)
            fetch(url, path, self.policy, max_bytes=MAX_MANIFEST_BYTES)
            content = path.read_bytes()

        # Under a new name, because another process may be reading an older one. If this
        # process is killed, the file is evicted like any other.
        path = self.cache.get(self._key(b""), f"{uuid.uuid4().hex}-{MANIFEST}", fill)
        assert path
        path.unlink(missing_ok=True)
        return content

    def _key(self, manifest: bytes) -> str:
        """Return the name of this shard set in the cache, 16 hexadecimal digits."""
        # With the manifest, which every `Remote` downloads again, so that files of a
        # changed shard set are never mixed with older ones.
        digest = hashlib.sha256(self.location.rstrip("/").encode() + b"\0" + manifest)
        return digest.hexdigest()[:16]


def _leading(shards: Iterable[Shard], max_bytes: int) -> deque[Shard]:
    """Return as many shards as fit into `max_bytes` together, from the first one on."""
    chosen: deque[Shard] = deque()
    for shard in shards:
        max_bytes -= shard.bytes
        if max_bytes < 0:
            break
        chosen.append(shard)
    return chosen


def open_store(location: str | Path, cache: Cache | None = None) -> Store:
    """Return the store for `location`: a `Folder` for a path, a `Remote` for a URL.

    Raises UserError if a URL is given without a cache, or if fsspec cannot open it.
    """
    scheme = scheme_of(str(location))
    if scheme is None:
        return Folder(location)
    if scheme == "file":
        return Folder(unquote(urlsplit(str(location)).path))
    filesystem(str(location))  # raises for an unknown scheme or a missing package
    if cache is None:
        raise UserError(
            f"{redact(str(location))} is not on this machine: "
            "give --cache DIR, a folder for downloaded shards"
        )
    return Remote(str(location), cache)
