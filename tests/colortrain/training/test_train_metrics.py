"""Metrics of training steps: means, rates, and the limit of skipped updates."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed.trainable import TrainableNetwork
from colortrain.recipe import Adam
from colortrain.training.train_metrics import TrainMetrics
from shards.errors import UserError


def make_metrics(max_skipped: int = 3) -> tuple[TrainMetrics, TrainableNetwork, Any]:
    accelerator = Accelerator(cpu=True)
    network = TrainableNetwork(nn.Linear(2, 1, bias=False), Adam(), accelerator)
    loader: Any = SimpleNamespace(waited=0.0, num_damaged=2)
    return (
        TrainMetrics({"generator": network}, loader, accelerator, max_skipped),
        network,
        loader,
    )


def take_update(network: TrainableNetwork, x: list[float]) -> None:
    network.backward(network(torch.tensor([x])).sum())
    network.update()


def test_means_and_rates_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, network, loader = make_metrics()
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    metrics.start(images=8)
    for x in ([3.0, 4.0], [0.0, 7.0]):
        take_update(network, x)
        metrics.update({"l1": torch.tensor(x[1])})
    metrics.update({"gp": torch.tensor(5.0)})
    clock.now, loader.waited = 114.0, 1.0
    metrics.exclude(4.0)
    assert metrics.compute(images=28, prefix="run") == {
        "seconds": 10.0,
        "images_per_second": 2.0,
        "data_wait": 0.1,
        "losses": {"gp": 5.0, "l1": 5.5},
        "gradient_norms": {"generator": 6.0},
        "skipped": 0,
    }
    assert metrics.compute(images=28, prefix="run") == {}
    assert metrics.num_damaged() == 2


def test_too_many_consecutive_skipped_updates_are_one_line() -> None:
    metrics, network, _ = make_metrics(max_skipped=3)
    for _ in range(2):
        take_update(network, [float("nan"), 0.0])
    metrics.update({"l1": torch.tensor(1.0)})
    assert metrics.compute(8, "run: step 2")["skipped"] == 2
    take_update(network, [float("inf"), 0.0])
    metrics.update({"l1": torch.tensor(1.0)})
    with pytest.raises(UserError) as raised:
        metrics.compute(12, "run: step 3")
    message = str(raised.value)
    assert message.startswith("run: step 3: 3 consecutive updates of the generator were skipped")
    assert "lower generator_adam.lr" in message
    assert "\n" not in message
