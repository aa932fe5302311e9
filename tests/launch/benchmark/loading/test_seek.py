"""Seeks and the memory of reading, each measured in a new process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.benchmark.loading import seek
from launch.benchmark.loading.shard_sets import write_synthetic_set


def test_a_function_runs_in_a_new_process() -> None:
    assert seek.run_in_new_process(os.getpid) != os.getpid()


def test_seeks_are_timed() -> None:
    times = seek.measure_seeks(32_000)
    counts = (len(times.new_epoch), len(times.same_epoch), len(times.same_position))
    assert counts == (50, 49, 50)  # the first seek in an epoch computes its order
    assert min(times.new_epoch + times.same_epoch + times.same_position) > 0
    assert times.growth_mb >= 0


def test_a_peak_that_seems_to_fall_has_not_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's count is approximate: once it fell by 0.11 MB."""
    peaks = iter((50.0, 49.89))
    monkeypatch.setattr(seek, "memory_mb", lambda _: next(peaks))
    assert seek.measure_seeks(32_000).growth_mb == 0


def test_positions_are_whole_batches_of_different_samples() -> None:
    samples = seek.positions(32_000, batches=4)
    assert samples.shape == (4 * 32,)
    assert len(set(samples.tolist())) == 4 * 32
    assert 0 <= samples.min() <= samples.max() < 32_000


def test_a_reading_process_needs_memory(tmp_path: Path) -> None:
    samples = seek.positions(32_000, batches=2)
    write_synthetic_set(tmp_path, 32_000, samples)
    memory = seek.run_in_new_process(seek.measure_reading_memory, tmp_path, samples)
    assert 0 < memory.own_mb <= memory.peak_mb + 1
