"""The time of each part of training: each second counts once, for one part."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch

from colortrain.training.profiling import NO_PROFILER
from launch.benchmark.training.time_fractions import PARTS, Stopwatch, profiled, train_for
from tests.support.benchmark_setup import small_setup


def test_each_second_belongs_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.accumulate([0, 1, 2, 4, 8, 16]).__next__)
    watch = Stopwatch(torch.device("cpu"))
    with watch.region("critic"), watch.region("generator"):
        pass
    watch.change()
    assert {part: seconds for part, seconds in watch.seconds.items() if seconds} == {
        "critic": 2 + 8,
        "generator": 4,
        "the rest": 1 + 16,
    }


def test_fractions_sum_to_one_and_no_profiler_stays(shards: Path, tmp_path: Path) -> None:
    trainer = small_setup(shards, tmp_path).make_trainer("run")
    fractions = train_for(trainer, 1.0)
    assert set(fractions) == set(PARTS)
    assert sum(fractions.values()) == pytest.approx(1)
    assert fractions["critic"] > 0.05 < fractions["generator"]
    assert trainer.profiler is NO_PROFILER


def test_without_a_critic_its_fraction_is_zero(shards: Path, tmp_path: Path) -> None:
    without_critic = ["critic=none", "objective.adversarial_weight=0"]
    trainer = small_setup(shards, tmp_path, *without_critic).make_trainer("run")
    fractions = train_for(trainer, 0.5)
    assert fractions["critic"] == 0 < fractions["generator"]


def test_the_profiler_is_removed_after_an_error(shards: Path, tmp_path: Path) -> None:
    trainer = small_setup(shards, tmp_path).make_trainer("run")
    with pytest.raises(ZeroDivisionError), profiled(trainer):
        raise ZeroDivisionError
    assert trainer.profiler is NO_PROFILER
