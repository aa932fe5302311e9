"""The readers of stored samples that the benchmark `loader` compares.

Each of them continues without end and yields the number of samples since the last
yield.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from launch.benchmark.loading.shard_sets import tar_paths
from launch.benchmark.timing import CountStream
from shards.format.manifest import MEMBER
from shards.read.dataset import Split
from shards.read.order import Order

_BEYOND_CACHE = 1 << 29  # bytes, many times the last-level cache of a processor


def colortrain_order(split: Split, batch_size: int) -> CountStream:
    """Read batches in training order with `Split.read`; yield the size of each."""
    out = split.empty(batch_size)
    order = Order([shard.samples for shard in split.shards], seed=0)
    start = 0
    while True:
        split.read(order(start, start + batch_size), out)
        start += batch_size
        yield batch_size


def colortrain_first_pass(split: Split, batch_size: int) -> CountStream:
    """Open the split again and read it in training order.

    Yields the size of each batch.
    """
    # A newly opened split verifies the checksum of each sample when it is first read.
    return colortrain_order(Split(split.root, split.name), batch_size)


def large_array(split: Split, batch_size: int) -> np.ndarray:
    """Return an array larger than the processor's caches, as a source for `memcpy`.

    Returns (N, 3, H, W) in the dtype of the split, with N at least 2 x `batch_size`.
    """
    samples = max(2 * batch_size, _BEYOND_CACHE // split.empty(1).nbytes)
    return np.ones((samples, *split.manifest.sample_shape), split.dtype)


def memcpy(source: np.ndarray, batch_size: int) -> CountStream:
    """Copy batches from an array in memory; yield the size of each batch.

    source: (N, 3, H, W).
    """
    out = np.empty((batch_size, *source.shape[1:]), source.dtype)
    while True:
        for start in range(0, len(source) - batch_size + 1, batch_size):
            # No reader that copies samples can be faster.
            np.copyto(out, source[start : start + batch_size])
            yield batch_size


def page_cache(split: Split, batch_size: int) -> CountStream:
    """Read all bytes of the tars in file order, without locating samples.

    Yields the number of samples to which the bytes correspond, which can be a fraction.
    """
    out = split.empty(batch_size).data.cast("B")
    samples_per_byte = {
        path: shard.samples / shard.bytes
        for path, shard in zip(tar_paths(split), split.shards, strict=True)
    }
    while True:
        for path, factor in samples_per_byte.items():
            with open(path, "rb", buffering=0) as stream:
                while num_bytes := stream.readinto(out):
                    yield num_bytes * factor


def webdataset_samples(tars: Sequence[Path]) -> CountStream:
    """Iterate over the decoded samples of webdataset without end; yield 1 for each."""
    dataset = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode()
    while True:
        for _ in dataset:
            yield 1


def webdataset_batches(tars: Sequence[Path], out: np.ndarray) -> CountStream:
    """Copy the decoded samples of webdataset to the rows of `out`, without end.

    out: (B, 3, H, W). Yields B whenever all rows are filled.
    """
    dataset = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode()
    return copy_into_rows(dataset, MEMBER, out)


def copy_into_rows(dataset: Any, name: str, out: np.ndarray) -> CountStream:
    """Copy the array `name` of each sample to the next row of `out`, without end.

    dataset: samples as dicts; out: (B, 3, H, W). Yields B whenever all rows are filled.
    """
    row = 0
    while True:
        for sample in dataset:
            out[row] = sample[name]
            row += 1
            if row == len(out):
                row = 0
                yield len(out)


def useful_worker_counts(requested: Sequence[int]) -> list[int]:
    """Return the requested numbers of workers that this machine can make use of.

    If there are none, [0] is returned.
    """
    # More workers would only compete for the cores.
    limit = 2 * (os.cpu_count() or 1)
    return [count for count in requested if count <= limit] or [0]
