"""The time of each part of training: each second counts once, no patch is left."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch

from launch.benchmark.training.time_shares import PARTS, Stopwatch, train_for
from tests.support.benchmark_setup import small_setup


def test_each_second_belongs_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.accumulate([0, 1, 2, 4, 8, 16]).__next__)
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("critic"), watch.part("generator"):
        pass
    watch.change()
    assert {part: seconds for part, seconds in watch.seconds.items() if seconds} == {
        "critic": 2 + 8,
        "generator": 4,
        "the rest": 1 + 16,
    }


def test_shares_are_of_all_the_time_and_leave_no_patch(shards: Path, tmp_path: Path) -> None:
    trainer = small_setup(shards, tmp_path).make_trainer("run")
    found = train_for(trainer, 1.0)
    assert set(found) == set(PARTS)
    assert sum(found.values()) == pytest.approx(1)
    assert found["critic"] > 0.05 < found["generator"]
    assert "update" not in vars(trainer.critic)
