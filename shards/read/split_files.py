"""The tars and the index of a split: open them, and find and replace damaged ones."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.errors import UserError
from shards.files import path_below, sha256_of
from shards.format.index import (
    Index,
    IndexArray,
    IndexFile,
    index_bytes,
    index_path,
    rebuild_index,
    rebuild_rows,
    write_index,
)
from shards.format.manifest import Manifest, Shard
from shards.read.store import Folder, Store

RESTORE = "restore it (`colortrain shards verify` finds damage) or build the shard set again"


class Fault(NamedTuple):
    """A damaged file, and advice on what the user can do about it."""

    file: str
    advice: str


class SplitFiles:
    """The tars and the index of one split in a store."""

    def __init__(self, store: Store, manifest: Manifest, split: str) -> None:
        self.store, self.manifest = store, manifest
        self.shards, self.samples = manifest.splits[split], manifest.samples(split)
        self.index_path = index_path(split)

    def open_index(self) -> Index:
        """Open the index of the split.

        In a local folder, a missing index is rebuilt from the tars. Raises UserError if
        the index is damaged.
        """
        if isinstance(self.store, Folder):
            path = self.store.path(self.index_path)
            return IndexFile(path, self.samples) if path.exists() else self._rebuild(self.store)
        while True:
            path = self.store.path(self.index_path, bytes=index_bytes(self.samples))
            try:
                return IndexFile(path, self.samples)
            except UserError:
                # A remote index that is damaged is downloaded a second time.
                if not self.store.discard(self.index_path, lambda _: False):
                    raise UserError(
                        f"{self.store.location}/{self.index_path} is damaged or does not belong "
                        "to the manifest: replace it in the store"
                    ) from None

    def _rebuild(self, folder: Folder) -> Index:
        shards, size, dtype = self.shards, self.manifest.size, self.manifest.dtype
        table = rebuild_index([self.tar(shard) for shard in shards], shards, size, dtype)
        path = folder.path(self.index_path)
        warnings.warn(f"{path} was missing and was rebuilt from the tars", stacklevel=4)
        with suppress(OSError, UserError):  # in a read-only folder it is rebuilt every time
            write_index(path_below(folder.root, self.index_path, writing=True), table)
        return IndexArray(table)

    def tar(self, shard: Shard) -> Path:
        """Return the local path of a shard's tar, downloading it if necessary."""
        return self.store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)

    def replace_damaged(self, shard: Shard, rows: tuple[int, int]) -> Fault:
        """Download a shard's tar, or the index of the split, again if it is damaged.

        `rows` are the first of the shard's rows in the index and the first after them.
        Returns the file to blame if the shard still cannot be read.
        """
        self.store.discard(shard.path, partial(_is_intact, shard))
        path = self.tar(shard)
        try:
            # The manifest holds the SHA-256 of each tar but not of the indexes, so the
            # index is compared with the rows that an intact tar gives.
            expected = rebuild_rows(path, shard, self.manifest.size, self.manifest.dtype)
        except UserError:
            return self._fault_of_tar(shard)
        self.store.discard(self.index_path, partial(self._has_rows, rows, expected))
        if np.array_equal(self.open_index().rows(*rows), expected):
            return self._fault_of_tar(shard)
        remote = not isinstance(self.store, Folder)
        advice = "replace it in the store" if remote else "delete it, and it is rebuilt from tars"
        return Fault(
            f"{self.store.location}/{self.index_path}",
            f"the index does not match {shard.path}, which is intact: {advice}",
        )

    def _has_rows(self, rows: tuple[int, int], expected: np.ndarray, path: Path) -> bool:
        try:
            return np.array_equal(IndexFile(path, self.samples).rows(*rows), expected)
        except UserError:
            return False

    def _fault_of_tar(self, shard: Shard) -> Fault:
        store = self.store
        if not isinstance(store, Folder) and not _is_intact(shard, path := self.tar(shard)):
            return Fault(
                str(path),
                "it was downloaded again and is damaged again: check the disk of the cache, or "
                "give another --cache",
            )
        return Fault(f"{store.location}/{shard.path}", RESTORE)


def _is_intact(shard: Shard, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
