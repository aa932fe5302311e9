"""Shard sets to measure on."""

from __future__ import annotations

from pathlib import Path

from launch.benchmark.loading import seek
from launch.benchmark.loading.shard_sets import (
    cached_fraction,
    drop_from_page_cache,
    first_shards,
    tar_paths,
    write_synthetic_set,
)
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set


def test_synthetic_sets_can_be_read_and_are_sparse(tmp_path: Path) -> None:
    num_samples = 400_000
    samples = seek.positions(num_samples, batches=3)
    write_synthetic_set(tmp_path, num_samples, samples)
    split = Split(tmp_path)
    assert len(split) == num_samples
    assert (split.read(samples)[:, 0, 0, 0] == samples % seek.SHARD_SAMPLES % 256).all()
    index = (tmp_path / "index.npy").stat()
    assert index.st_blocks * 512 < index.st_size / 4


def test_first_shards_hold_the_same_samples(tmp_path: Path) -> None:
    split = Split(small_set(tmp_path / "set", count=12))  # shards of 5, 5 and 2
    assert first_shards(split, tmp_path / "all", max_bytes=1e9) is split
    part = first_shards(split, tmp_path / "part", max_bytes=2 * split.shards[0].bytes)
    assert len(part) == 10
    assert (part.read(range(10)) == split.read(range(10))).all()
    assert len(first_shards(split, tmp_path / "one", max_bytes=1)) == 5


def test_cached_pages_are_counted(tmp_path: Path) -> None:
    tars = tar_paths(Split(small_set(tmp_path / "set", count=12)))
    for tar in tars:
        tar.read_bytes()
    assert cached_fraction(tars) == 1
    drop_from_page_cache(tars)
    assert 0 <= cached_fraction(tars) <= 1  # 1 on file systems in memory
    assert cached_fraction([]) == 0
