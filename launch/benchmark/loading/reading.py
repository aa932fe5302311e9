"""Contestants that bring stored samples into one reused array of a batch: ours, the machine's limits, and others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from launch.benchmark.loading.shard_sets import tars_of
from launch.benchmark.timing import Stream
from shards.format.manifest import MEMBER
from shards.read.dataset import Split
from shards.read.order import Order

_BEYOND_CACHE = 1 << 29  # bytes: many times the last cache of a processor


def ours(split: Split, batch_size: int) -> Stream:
    """`Split.read` in training order."""
    out = split.empty(batch_size)
    order = Order([shard.samples for shard in split.shards], seed=0)
    start = 0
    while True:
        split.read(order(start, start + batch_size), out)
        start += batch_size
        yield batch_size


def opened_anew(split: Split, batch_size: int) -> Stream:
    """The same by a reader that has checked nothing yet."""
    return ours(Split(split.root, split.name), batch_size)


def big_array(split: Split, batch_size: int) -> np.ndarray:
    """Stored samples in memory, two batches at least and more than a cache holds: what `memcpy` copies from."""
    samples = max(2 * batch_size, _BEYOND_CACHE // split.empty(1).nbytes)
    return np.ones((samples, *split.manifest.sample_shape), split.dtype)


def memcpy(big: np.ndarray, batch_size: int) -> Stream:
    """Copies of a batch's bytes, one after another, out of a large array: the limit of any reader that copies."""
    out = np.empty((batch_size, *big.shape[1:]), big.dtype)
    while True:
        for start in range(0, len(big) - batch_size + 1, batch_size):
            np.copyto(out, big[start : start + batch_size])
            yield batch_size


def page_cache(split: Split, batch_size: int) -> Stream:
    """The tars' bytes in file order with `readinto`, a batch's bytes at a time, tar headers and all."""
    out = split.empty(batch_size).data.cast("B")
    samples = {
        path: shard.samples / shard.bytes
        for path, shard in zip(tars_of(split), split.shards, strict=True)
    }
    while True:
        for path, samples_a_byte in samples.items():
            with open(path, "rb", buffering=0) as stream:
                while found := stream.readinto(out):
                    yield found * samples_a_byte


def webdataset_samples(tars: Sequence[Path]) -> Stream:
    """`WebDataset(tars, shardshuffle=False).decode()`, sample by sample, left where it puts them."""
    dataset = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode()
    while True:
        for _ in dataset:
            yield 1


def webdataset_batches(tars: Sequence[Path], out: np.ndarray) -> Stream:
    """The same, copied into the rows of a batch."""
    dataset = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode()
    return into_rows(dataset, MEMBER, out)


def into_rows(dataset: Any, name: str, out: np.ndarray) -> Stream:
    """Epoch after epoch of a data set of named arrays, each copied into the next row of `out`."""
    row = 0
    while True:
        for sample in dataset:
            out[row] = sample[name]
            row += 1
            if row == len(out):
                row = 0
                yield len(out)


def workers_worth_trying(asked: Sequence[int]) -> list[int]:
    """`asked` without those that are more than twice the cores: they only wait for one another."""
    most = 2 * (os.cpu_count() or 1)
    return [count for count in asked if count <= most] or [0]
