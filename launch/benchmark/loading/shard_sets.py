"""Shard sets to measure on: the first shards of the user's own, and one of any number of samples that takes no room."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launch.benchmark.loading.seek import SHARD_SAMPLES
from shards.files import sha256_of
from shards.format.index import INDEX, rebuild_index, write_index
from shards.format.manifest import ONE_SPLIT, Manifest, Shard, save_manifest, split_folder
from shards.format.tar_layout import TarOfSamples
from shards.read.dataset import Split

_SIZE = 8  # pixels of a synthetic sample


def tars_of(split: Split) -> list[Path]:
    """The local paths of a split's tars."""
    return [split.store.path(shard.path) for shard in split.shards]


def first_shards(split: Split, folder: Path, most_bytes: float) -> Split:
    """The split itself, or where it is larger than `most_bytes`, its first shards: a set of links in `folder`."""
    totals = np.cumsum([shard.bytes for shard in split.shards])
    count = max(1, int(np.searchsorted(totals, most_bytes, side="right")))
    if count >= len(split.shards):
        return split
    shards = split.shards[:count]
    for shard, tar in zip(shards, tars_of(split), strict=False):
        (folder / shard.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / shard.path).symlink_to(tar.resolve())
    rows = sum(shard.samples for shard in shards)
    write_index(split_folder(folder, split.name) / INDEX, np.array(split.index[:rows]))
    save_manifest(replace(split.manifest, splits={split.name: shards}), folder)
    return Split(folder, split.name)


def synthetic_set(folder: Path, num_samples: int, read: np.ndarray) -> None:
    """A set of `num_samples` whose shards are all one tar; of its index only the rows `read` take room on the disk."""
    with TarOfSamples(folder, "000000.tar", _SIZE, "uint8") as tar:
        for key in range(SHARD_SAMPLES):
            tar.add(key, bytes([key % 256]) * 3 * _SIZE**2)
    path = folder / "000000.tar"
    size = path.stat().st_size
    shard = Shard(path=path.name, samples=SHARD_SAMPLES, bytes=size, sha256=sha256_of(path))
    rows = rebuild_index([path], [shard], _SIZE, "uint8")
    shape = (num_samples, *rows.shape[1:])
    table = np.lib.format.open_memmap(folder / INDEX, "w+", rows.dtype, shape)
    table[read] = rows[read % SHARD_SAMPLES]
    table.flush()
    shards = (shard,) * (num_samples // SHARD_SAMPLES)
    save_manifest(
        Manifest(size=_SIZE, fit="crop", dtype="uint8", splits={ONE_SPLIT: shards}, left_out={}),
        folder,
    )


def drop_cached(paths: Sequence[Path]) -> None:
    """Ask the kernel to forget what it holds of these files; what a process has mapped and touched stays."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not written yet is kept
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(paths: Sequence[Path]) -> float:
    """Which share of the files' pages is in memory, in [0, 1]."""
    flags = [_cached_pages(path) for path in paths if path.stat().st_size]
    return float(np.concatenate(flags).mean()) if flags else 0.0


def _cached_pages(path: Path) -> np.ndarray:
    """Whether each page of a file is in memory: bool (pages,)."""
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        found = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        begin = ctypes.c_char.from_buffer(mapped)
        where = ctypes.c_void_p(ctypes.addressof(begin))
        into = found.ctypes.data_as(ctypes.c_void_p)
        status = ctypes.CDLL(None).mincore(where, ctypes.c_size_t(len(mapped)), into)
        del begin  # the mapping could not be closed otherwise
    return (found & 1).astype(bool) if status == 0 else np.zeros(len(found), bool)
