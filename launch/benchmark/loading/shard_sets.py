"""Create shard sets to measure on: the first shards of a set, or synthetic ones."""

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


def tar_paths(split: Split) -> list[Path]:
    """Return the local paths of the tar files of a split."""
    return [split.store.path(shard.path) for shard in split.shards]


def first_shards(split: Split, folder: Path, max_bytes: float) -> Split:
    """Return a split with the first shards of `split`, of at most `max_bytes` in total.

    The first shard is included even if it is larger. If shards are left out, the split
    is written to `folder`, as a shard set of symbolic links.
    """
    totals = np.cumsum([shard.bytes for shard in split.shards])
    count = max(1, int(np.searchsorted(totals, max_bytes, side="right")))
    if count >= len(split.shards):
        return split
    shards = split.shards[:count]
    for shard, tar in zip(shards, tar_paths(split), strict=False):
        (folder / shard.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / shard.path).symlink_to(tar.resolve())
    rows = sum(shard.samples for shard in shards)
    write_index(split_folder(folder, split.name) / INDEX, split.index.rows(0, rows))
    save_manifest(replace(split.manifest, splits={split.name: shards}), folder)
    return Split(folder, split.name)


def write_synthetic_set(folder: Path, num_samples: int, read: np.ndarray) -> None:
    """Write a shard set of `num_samples` samples that takes little space on disk.

    read: (n,) int64, numbers of the samples that can be read afterwards.
    """
    with TarOfSamples(folder, "000000.tar", _SIZE, "uint8") as tar:
        for key in range(SHARD_SAMPLES):
            tar.add(key, bytes([key % 256]) * 3 * _SIZE**2)
    path = folder / "000000.tar"
    size = path.stat().st_size
    shard = Shard(path=path.name, samples=SHARD_SAMPLES, bytes=size, sha256=sha256_of(path))
    rows = rebuild_index([path], [shard], _SIZE, "uint8")
    shape = (num_samples, *rows.shape[1:])
    # A sparse file, complete only for the samples in `read`.
    index = np.lib.format.open_memmap(folder / INDEX, "w+", rows.dtype, shape)
    index[read] = rows[read % SHARD_SAMPLES]
    index.flush()
    # All shards are the same tar.
    shards = (shard,) * (num_samples // SHARD_SAMPLES)
    save_manifest(
        Manifest(size=_SIZE, fit="crop", dtype="uint8", splits={ONE_SPLIT: shards}, left_out={}),
        folder,
    )


def write_noise_set(folder: Path, size: int, num_samples: int) -> None:
    """Write a shard set of random pixels, `size` x `size`, in one split."""
    random, path = np.random.default_rng(0), Path("000000.tar")
    with TarOfSamples(folder, path.name, size, "uint8") as tar:
        for key in range(num_samples):
            tar.add(key, random.integers(0, 256, (3, size, size), np.uint8).tobytes())
    assert tar.shard
    rows = rebuild_index([folder / path], [tar.shard], size, "uint8")
    write_index(folder / INDEX, rows)
    splits = {ONE_SPLIT: (tar.shard,)}
    save_manifest(
        Manifest(size=size, fit="crop", dtype="uint8", splits={**splits}, left_out={}), folder
    )


def drop_from_page_cache(paths: Sequence[Path]) -> None:
    """Ask the kernel to drop files from the page cache, except mapped pages."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not written yet would be kept
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_fraction(paths: Sequence[Path]) -> float:
    """Return the fraction of the files' pages that are in the page cache, in [0, 1]."""
    flags = [_cached_pages(path) for path in paths if path.stat().st_size]
    return float(np.concatenate(flags).mean()) if flags else 0.0


def _cached_pages(path: Path) -> np.ndarray:
    """Return whether each page of a file is in the page cache, as (pages,) bool."""
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        flags = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        first_byte = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(first_byte))
        out = flags.ctypes.data_as(ctypes.c_void_p)
        status = ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mapped)), out)
        del first_byte  # the mapping could not be closed otherwise
    return (flags & 1).astype(bool) if status == 0 else np.zeros(len(flags), bool)
