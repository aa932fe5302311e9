"""Counting what happens on a GPU; `count_steps` is tested in test_counts.py."""

from __future__ import annotations

import pytest
import torch

from launch.benchmark.training.device_counts import OperationCounter, count_waits
from tests.support.gpus import one_gpu


def test_operations_on_the_cpu_are_not_counted() -> None:
    with OperationCounter() as counter:
        torch.ones(3).add(1).clone()
    assert (counter.operations, counter.to_device, counter.to_host) == (0, 0, 0)


@one_gpu
@pytest.mark.gpu
def test_operations_with_their_gradients_and_copies_are_counted() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)
    with OperationCounter() as counter:
        product = weight.view(1, 3) * 2
        product.sum().backward()
        torch.ones(5).to("cuda")
        weight.detach().cpu()
    # mul, sum; the first gradient, that of mul (sum's is a view); two copies
    assert counter.operations == 6
    assert (counter.to_device, counter.to_host) == (20, 12)


@one_gpu
@pytest.mark.gpu
def test_waits_are_counted() -> None:
    values = torch.ones(3, device="cuda")
    with count_waits() as waits:
        values.sum()
    assert not waits
    with count_waits() as waits:
        values.sum().item()
    assert len(waits) == 1
