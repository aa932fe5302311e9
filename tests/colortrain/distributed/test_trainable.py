"""Updates of a network: clipping, skipped updates, gradient norms, rebuilt buckets."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.trainable import (
    SkippedUpdates,
    TrainableNetwork,
    rebuild_ddp_buckets,
)
from colortrain.recipe import Adam
from tests.support.networks import (
    assert_equal,
    copy_state,
    float_batch,
    make_pair,
    recipe_with_dropout,
)

CPU = torch.device("cpu")


def linear(compute: ComputeConfig | None = None, **adam: float) -> TrainableNetwork:
    """Return a network with weights (1, 1): the gradient of its output is the input."""
    module = nn.Linear(2, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    config = Adam(lr=0.1, betas=(0.5, 0.999), **adam)
    return TrainableNetwork(module, config, Accelerator(cpu=True), compute)


def test_clipping_keeps_the_direction() -> None:
    """A gradient (3, 4), clipped to norm 1, gives a first moment of half (0.6, 0.8)."""
    for clip, expected in ((1.0, [0.3, 0.4]), (6.0, [1.5, 2.0]), (0.0, [1.5, 2.0])):
        network = linear(clip=clip)
        network.backward(network(torch.tensor([[3.0, 4.0]])).sum())
        network.update()
        (moments,) = network.optimizer.state.values()
        assert moments["exp_avg"].flatten().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_skipped(fused: bool, bad: float) -> None:
    """Weights, moments and Adam's step count are the same as without that update."""
    compute = ComputeConfig(fused_adam=fused)
    network, undisturbed = linear(compute), linear(compute)
    for scale in (1.0, bad, 2.0):
        network.backward(network(torch.tensor([[3.0, 4.0]])).sum() * scale)
        network.update()
        if math.isfinite(scale):
            undisturbed.backward(undisturbed(torch.tensor([[3.0, 4.0]])).sum() * scale)
            undisturbed.update()
    assert_equal(copy_state(network), copy_state(undisturbed))
    (state,), (expected,) = network.optimizer.state.values(), undisturbed.optimizer.state.values()
    assert_equal(state, expected)
    assert network.skipped_updates.read() == (1, 1)


def test_a_loss_that_is_not_finite_makes_all_gradients_nan() -> None:
    """An infinite constant has gradient 0; the NaN is all-reduced to other ranks."""
    network = linear(ComputeConfig(accumulate=2))
    before = copy_state(network)
    network.backward(network(torch.ones(1, 2)).sum() + math.inf)
    (weight,) = network.module.parameters()
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    network.backward(network(torch.ones(1, 2)).sum())
    network.update()
    assert_equal(copy_state(network), before)


def test_consecutive_skipped_updates_are_counted_across_readings() -> None:
    skipped = SkippedUpdates(CPU)
    for failed in (1, 1, 0, 1):
        skipped.record(torch.tensor(float(failed)))
    assert skipped.read() == (3, 2)
    skipped.record(torch.tensor(1.0))
    assert skipped.read() == (1, 2)
    skipped.record(torch.tensor(0.0))
    assert skipped.read() == (0, 2)
    assert skipped.read() == (0, 0)


def test_grad_norms_are_those_before_clipping() -> None:
    """The gradient of sum(W x) is x for every W."""
    network = TrainableNetwork(nn.Linear(2, 1, bias=False), Adam(clip=0.1), Accelerator(cpu=True))
    for x in ([3.0, 4.0], [0.0, 7.0]):
        network.backward(network(torch.tensor([x])).sum())
        network.update()
    assert network.mean_grad_norm() == pytest.approx((5 + 7) / 2)
    assert network.mean_grad_norm() is None


def test_a_frozen_network_gets_no_gradients() -> None:
    network = linear()
    with network.frozen() as module:
        x = torch.ones(1, 2, requires_grad=True)
        module(x).sum().backward()
    assert x.grad is not None
    (weight,) = network.module.parameters()
    assert weight.grad is None
    assert weight.requires_grad


def test_rebuilding_buckets_changes_no_state() -> None:
    """Weights, running statistics, gradients and the optimizer's state are compared."""
    generator, _ = make_pair(recipe_with_dropout())
    before = copy_state(generator)
    rebuild_ddp_buckets(generator, float_batch(0).L)
    assert_equal(copy_state(generator), before)
    assert all(parameter.grad is None for parameter in generator.module.parameters())
    assert not generator.optimizer.state
