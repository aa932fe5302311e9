"""Measure the time and memory of seeking, and the memory of a reading process.

To seek is to compute which samples are at a position of the training order.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from launch.processes import memory_mb
from shards.read.dataset import Split
from shards.read.order import Order

SHARD_SAMPLES = 1000
_BATCH = 32
_SEEKS = 50
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class SeekTimes:
    """The milliseconds of each seek, and by how many MB the process's peak memory grew.

    To seek is to compute which samples are in the batch at a position of the training
    order.
    """

    new_epoch: tuple[float, ...]  # a different epoch each time, so that nothing is cached
    same_epoch: tuple[float, ...]  # another position of the same epoch each time
    same_position: tuple[float, ...]
    growth_mb: float  # of the peak memory


@dataclass(frozen=True)
class ReadingMemory:
    """The MB of memory that opening and reading a shard set adds to a process."""

    own_mb: float  # private memory
    mapped_mb: float  # pages of files, which the kernel can take back
    peak_mb: float  # maximum of both together, reached while the manifest is parsed


def run_in_new_process(
    function: Callable[_Parameters, _Result],
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call `function` in a new Python process and return its result."""
    # A process that has run before could reuse free memory, which would not be counted.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def measure_seeks(num_samples: int) -> SeekTimes:
    """Measure seeks in the training order of a data set with `num_samples` samples."""
    before = memory_mb("VmHWM")
    order = Order(np.full(num_samples // SHARD_SAMPLES, SHARD_SAMPLES), seed=0)
    offsets = np.random.default_rng(0).integers(0, num_samples, _SEEKS).tolist()
    epochs = [
        _milliseconds(order, epoch * num_samples + offset)
        for epoch, offset in enumerate(offsets, 1)
    ]
    last_epoch = (_SEEKS + 1) * num_samples
    same_epoch = [_milliseconds(order, last_epoch + offset) for offset in offsets]
    same_position = [_milliseconds(order, last_epoch + offsets[-1]) for _ in range(_SEEKS)]
    # The kernel sums its counts per CPU only now and then: the peak can seem to fall.
    growth = max(0.0, memory_mb("VmHWM") - before)
    return SeekTimes(tuple(epochs), tuple(same_epoch[1:]), tuple(same_position), growth)


def _milliseconds(order: Order, position: int) -> float:
    start = time.perf_counter()
    order(position, position + _BATCH)
    return (time.perf_counter() - start) * 1000


def positions(num_samples: int, batches: int) -> np.ndarray:
    """Return the numbers of the samples in batches spread evenly over an epoch.

    Returns (32 * batches,) int64; each batch has 32 samples in training order.
    """
    order = Order(np.full(num_samples // SHARD_SAMPLES, SHARD_SAMPLES), seed=0)
    starts = np.linspace(0, num_samples - _BATCH, batches).astype(int)
    return np.concatenate([order(start, start + _BATCH) for start in starts.tolist()])


def measure_reading_memory(folder: Path, samples: np.ndarray) -> ReadingMemory:
    """Measure the memory that opening and reading a shard set adds to this process.

    samples: (n,) int64, numbers of the samples to read in batches of 32; n must be a
    multiple of 32.
    """
    own, mapped, peak = memory_mb("RssAnon"), memory_mb("RssFile"), memory_mb("VmHWM")
    split = Split(folder)
    out = split.empty(_BATCH)
    for batch in samples.reshape(-1, _BATCH):
        split.read(batch, out)
    return ReadingMemory(
        memory_mb("RssAnon") - own, memory_mb("RssFile") - mapped, memory_mb("VmHWM") - peak
    )
