"""The floating-point operations and the memory of steps."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from colortrain.lab import Batch
from launch.benchmark.loading.seek import run_in_new_process
from launch.benchmark.training.costs import memory_of_steps, operations_per_image
from tests.support.benchmark_setup import small_setup


def test_operations_of_one_convolution_are_twice_its_multiplications(
    shards: Path, tmp_path: Path
) -> None:
    """Forward and the gradient of the weights are counted; the input has no gradient.

    Of the two steps of a cycle, only one computes here.
    """
    convolution, steps = torch.nn.Conv2d(1, 5, 3, padding=1), itertools.count()

    def take_step(batch: Batch) -> None:
        if next(steps) % 2:
            convolution(batch.L).sum().backward()

    trainer: Any = SimpleNamespace(recipe=SimpleNamespace(n_critic=2), take_step=take_step)
    batches = small_setup(shards, tmp_path).load_batches()
    forward = 2 * convolution.weight.numel() * 32 * 32
    assert operations_per_image(trainer, batches) == 2 * forward / 2


def test_operations_per_image_do_not_depend_on_the_batch(shards: Path, tmp_path: Path) -> None:
    setup = small_setup(shards, tmp_path, "batch_size=2")
    batches = setup.load_batches()
    single = [Batch(batch.L[:1], batch.colour[:1], batch.mix[:1]) for batch in batches]
    of_two = operations_per_image(setup.make_trainer("run"), batches)
    of_one = operations_per_image(setup.make_trainer("single"), single)
    assert of_one == pytest.approx(of_two, rel=1e-6)


def memory_of_40_mb() -> float:
    """Return the memory, in MB, of steps that keep 40 MB of tensors."""
    tensors: list[torch.Tensor] = []

    def make_step() -> Any:
        return lambda batch: tensors.append(torch.ones(20 * 2**20, dtype=torch.uint8))

    return memory_of_steps(make_step, lambda: [torch.zeros(1)], 2)  # type: ignore[list-item]


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures resident memory")
def test_memory_that_steps_keep_is_counted() -> None:
    assert 39 < run_in_new_process(memory_of_40_mb) < 80
