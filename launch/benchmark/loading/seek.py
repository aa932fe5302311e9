"""Any position of an endless stream, in time and memory: on counts alone, and by a reading process of any size.

Each measurement has a process of its own, started fresh: memory that something else once used would hide its own.
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
_Words = ParamSpec("_Words")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Seeks:
    """Milliseconds of each seek, and how much memory the process grew by at most, in MB."""

    anywhere: tuple[float, ...]  # another epoch each time: nothing of it is known
    same_epoch: tuple[float, ...]
    repeated: tuple[float, ...]  # the batch after the last one
    grown_mb: float


@dataclass(frozen=True)
class Reading:
    """MB that opening a shard set and reading from all over it added to a process."""

    own_mb: float  # memory nobody else can have
    mapped_mb: float  # pages of files, which the kernel takes back when it needs them
    peak_mb: float  # of both, at any time: the manifest is parsed first


def alone(job: Callable[_Words, _Result], *words: _Words.args, **more: _Words.kwargs) -> _Result:
    """Run `job` in a fresh interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(job, *words, **more).result()


def seeks(num_samples: int) -> Seeks:
    """Seek in an order of that many samples."""
    before = memory_mb("VmHWM")
    order = Order(np.full(num_samples // SHARD_SAMPLES, SHARD_SAMPLES), seed=0)
    anywhere = np.random.default_rng(0).integers(0, num_samples, _SEEKS)
    epochs = [
        _milliseconds(order, epoch * num_samples + int(at)) for epoch, at in enumerate(anywhere, 1)
    ]
    inside = [_milliseconds(order, (_SEEKS + 1) * num_samples + int(at)) for at in anywhere]
    repeated = [
        _milliseconds(order, (_SEEKS + 1) * num_samples + int(anywhere[-1])) for _ in range(_SEEKS)
    ]
    return Seeks(tuple(epochs), tuple(inside[1:]), tuple(repeated), memory_mb("VmHWM") - before)


def _milliseconds(order: Order, position: int) -> float:
    began = time.perf_counter()
    order(position, position + _BATCH)
    return (time.perf_counter() - began) * 1000


def positions(num_samples: int, batches: int) -> np.ndarray:
    """The samples of `batches` batches from places all over an epoch: int64 (batches * 32,)."""
    order = Order(np.full(num_samples // SHARD_SAMPLES, SHARD_SAMPLES), seed=0)
    starts = np.linspace(0, num_samples - _BATCH, batches).astype(int)
    return np.concatenate([order(start, start + _BATCH) for start in starts.tolist()])


def read_all_over(folder: Path, samples: np.ndarray) -> Reading:
    """Open the set in `folder` and read `samples`, a batch at a time."""
    own, mapped, peak = memory_mb("RssAnon"), memory_mb("RssFile"), memory_mb("VmHWM")
    split = Split(folder)
    out = split.empty(_BATCH)
    for batch in samples.reshape(-1, _BATCH):
        split.read(batch, out)
    return Reading(
        memory_mb("RssAnon") - own, memory_mb("RssFile") - mapped, memory_mb("VmHWM") - peak
    )
