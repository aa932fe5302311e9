"""The methods that read stored samples into a batch."""

from __future__ import annotations

import gc
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from launch.benchmark.loading import reading
from launch.benchmark.loading.shard_sets import tar_paths
from shards.format.manifest import MEMBER
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return Split(small_set(tmp_path / "set", size=16, count=12))


def test_the_page_cache_counts_each_sample_once_per_pass(split: Split) -> None:
    """The bytes of the tars, headers included, are those of all samples."""
    num_bytes = split.empty(4).nbytes
    reads = sum(-(-shard.bytes // num_bytes) for shard in split.shards)
    assert sum(islice(reading.page_cache(split, 4), reads)) == pytest.approx(len(split))


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # webdataset leaves a file open
def test_webdataset_fills_the_rows_in_file_order(split: Split) -> None:
    out = split.empty(4)
    stream = reading.webdataset_batches(tar_paths(split), out)
    for batch in range(3):
        assert next(stream) == 4
        assert (out == split.read(range(4 * batch, 4 * batch + 4))).all()
    stream.close()
    assert sum(islice(reading.webdataset_samples(tar_paths(split)), 12)) == 12
    gc.collect()


def test_rows_are_filled_across_epochs() -> None:
    dataset = [{MEMBER: np.full(2, value)} for value in range(3)]
    out = np.zeros((2, 2), int)
    stream = reading.copy_into_rows(dataset, MEMBER, out)
    filled = [out[:, 0].tolist() for _ in islice(stream, 3)]
    assert filled == [[0, 1], [2, 0], [1, 2]]


def test_memcpy_copies_whole_batches() -> None:
    source = np.arange(5).reshape(5, 1)
    assert list(islice(reading.memcpy(source, 2), 3)) == [2, 2, 2]


def test_colortrain_reads_whole_batches(split: Split) -> None:
    assert list(islice(reading.colortrain_order(split, 5), 4)) == [5] * 4
    assert list(islice(reading.colortrain_first_pass(split, 5), 2)) == [5] * 2


def test_more_workers_than_twice_the_cores_are_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert reading.useful_worker_counts([0, 4, 5]) == [0, 4]
    assert reading.useful_worker_counts([16]) == [0]
