"""Indexed reading of a shard set: any samples, in any order, copied straight from mapped tars into one array.

No torch, no pickle, no tar parsing: offsets come from the split's index table, and each member's header must be the
one the manifest implies before its pixels are used.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shards.errors import UserError
from shards.format import Manifest, key_name, load_manifest, member_bytes, member_header, split_folder
from shards.index import INDEX, load_index

_MAX_OPEN = 256


class Split:
    """The samples of one split, numbered 0..N-1 through its shards in the manifest's order.

    >>> split = Split("photos-256", "train")
    >>> batch = split.read([5, 1, 7])          # uint8 (3, 3, 256, 256): packed Lab
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        self.manifest: Manifest = load_manifest(root)
        self.name = self.manifest.choose_split(split, root)
        self.shards = self.manifest.splits[self.name]
        self.starts = np.cumsum([0, *(shard.samples for shard in self.shards)])
        self.header = member_header(self.manifest.size, self.manifest.dtype)
        self.content = member_bytes(self.manifest.size, self.manifest.dtype)
        self.index = self._load_index()
        self._maps: dict[int, mmap.mmap] = {}
        self._pid = os.getpid()

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.manifest.dtype)

    def key(self, sample: int) -> int:
        """The key of a sample, the number its source has in OUT/sources."""
        return int(self.index[sample, 0])

    def empty(self, count: int) -> np.ndarray:
        """Room for `count` samples: (count, 3, size, size) of the stored type."""
        return np.empty((count, *self.manifest.sample_shape), self.dtype)

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy the packed Lab of `samples` into one contiguous array (into `out` if given)."""
        numbers = np.fromiter(samples, np.int64)
        out = self.empty(len(numbers)) if out is None else out
        which = np.searchsorted(self.starts, numbers, side="right") - 1
        for row, (sample, shard) in enumerate(zip(numbers.tolist(), which.tolist(), strict=True)):
            out[row] = self._pixels(sample, shard)
        return out

    def _pixels(self, sample: int, shard: int) -> np.ndarray:
        offset = int(self.index[sample, 1])
        mapped = self._map(shard)
        end = offset + self.content
        if offset < 0 or end > len(mapped) or mapped[offset : offset + len(self.header)] != self.header:
            raise UserError(
                f"{self.root / self.shards[shard].path}: member {key_name(self.key(sample))} at byte {offset} is "
                f"damaged; `python -m shards verify {self.root}` checks all, then restore that file or build again"
            )
        start = offset + len(self.header)
        count = 3 * self.manifest.size**2
        return np.frombuffer(mapped, self.dtype, count, start).reshape(self.manifest.sample_shape)

    def _map(self, shard: int) -> mmap.mmap:
        """The shard's mapping, opened when first needed; a forked or spawned process opens its own."""
        if self._pid != os.getpid():
            self._maps, self._pid = {}, os.getpid()
        if shard not in self._maps:
            if len(self._maps) >= _MAX_OPEN:
                self._maps.pop(next(iter(self._maps)))
            self._maps[shard] = self._open(shard)
        return self._maps[shard]

    def _open(self, shard: int) -> mmap.mmap:
        record = self.shards[shard]
        path = self.root / record.path
        if not path.is_file():
            raise UserError(f"{path} is missing, the manifest names it: restore it or build the shard set again")
        found = path.stat().st_size
        if found != record.bytes:
            raise UserError(f"{path} has {found} bytes, the manifest says {record.bytes}: restore it or build again")
        with open(path, "rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def _load_index(self) -> np.ndarray:
        return load_index(split_folder(self.root, self.name) / INDEX, len(self))


def open_held_out(root: str | Path) -> Split:
    """The split to score on: `val`, `validation` or `test`, else the only one there is."""
    return Split(root, load_manifest(root).held_out() or "val")
