"""Muon: compared with the SVD, with torch.optim.Muon, and after resuming."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from colortrain.distributed import muon
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.muon import hidden_weights, orthogonalize
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.recipe import Adam

ADAM = Adam(lr=0.01, betas=(0.9, 0.99), muon=0.02)


def small_network(compute: ComputeConfig | None = None, adam: Adam = ADAM) -> TrainableNetwork:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 2, 3),
    )
    return TrainableNetwork(module, adam, Accelerator(cpu=True), compute)


def train(network: TrainableNetwork, *scales: float) -> None:
    x = torch.linspace(-1, 1, 2 * 144).view(2, 1, 12, 12)
    for scale in scales:
        network.backward(network(x).square().mean() * scale)
        network.update()


def weights(network: TrainableNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.module.named_parameters()}


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_singular_values_become_nearly_one_and_vectors_do_not_change(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, before, vt = torch.linalg.svd(matrix, full_matrices=False)
    ((result,),) = orthogonalize([matrix.clone()[None]])
    core = u.T @ result @ vt.T
    assert before.max() / before.min() > 1.5
    assert (core - core.diag().diag()).abs().max() < 1e-4
    assert core.diag().min() > 0.6
    assert core.diag().max() < 1.25


def test_stacks_with_one_shorter_side_are_orthogonalized_as_each_matrix_alone() -> None:
    torch.manual_seed(0)
    stacks = [torch.randn(shape) for shape in [(2, 4, 30), (3, 4, 9), (1, 30, 4), (2, 4, 4)]]
    results = orthogonalize([stack.clone() for stack in stacks])
    for stack, result in zip(stacks, results, strict=True):
        for matrix, each in zip(stack, result, strict=True):
            ((alone,),) = orthogonalize([matrix.clone()[None]])
            torch.testing.assert_close(each, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon, torch 2.9")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("max_numbers", [1, 1000, 1 << 24])
def test_steps_are_those_of_torch_for_matrices(
    channels_last: bool, max_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal gradients and weights; torch iterates in bfloat16, we in float32."""
    monkeypatch.setitem(muon.MAX_NUMBERS, "cpu", max_numbers)
    torch.manual_seed(0)
    shapes = [(8, 5, 3, 3), (20, 8), (8, 20), (20, 8), (8, 8, 3, 3), (8, 8, 1, 1), (8, 2, 2, 2)]
    shapes += [(8, 20, 1, 1), (8, 5, 3, 3), (8, 8), (3, 8)]
    module = nn.Module()
    for i, shape in enumerate(shapes):
        module.register_parameter(f"weight_{i}", nn.Parameter(torch.randn(shape) / 10))
    compute = ComputeConfig(channels_last=channels_last)
    compute.apply_to(module, compiles=False, recomputes=False)
    network = TrainableNetwork(module, ADAM, Accelerator(cpu=True), compute)
    hidden = hidden_weights(module)
    assert len(hidden) == len(shapes) - 2
    assert all(weight.is_contiguous() for weight in hidden) != channels_last
    references = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in hidden]
    starts = [weight.detach().clone() for weight in references]
    optimizer = torch.optim.Muon(references, lr=ADAM.muon, weight_decay=0.0)
    for _ in range(6):
        for weight, reference in zip(hidden, references, strict=True):
            weight.grad = torch.randn_like(weight)
            reference.grad = weight.grad.flatten(1).clone()
        network.optimizer.step()
        optimizer.step()
    for weight, reference, start in zip(hidden, references, starts, strict=True):
        change, expected = weight.detach().flatten(1) - start, reference.detach() - start
        assert expected.norm() > 0.1
        assert (change - expected).norm() < 0.02 * expected.norm()


def test_adam_updates_first_and_last_weights_and_all_vectors() -> None:
    """With frozen hidden weights, every step is that of Adam alone."""
    one, other = small_network(), small_network(adam=Adam(lr=ADAM.lr, betas=ADAM.betas))
    for network in (one, other):
        assert [tuple(weight.shape) for weight in hidden_weights(network.module)] == [
            (8, 4, 3, 3),
            (6, 8, 1, 1),
        ]
        for weight in hidden_weights(network.module):
            weight.requires_grad_(False)
        train(network, 1.0, 1.0, 1.0)
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


def test_both_learning_rates_are_scaled() -> None:
    network = small_network()
    network.scale_lr(0.5)
    assert [group["lr"] for group in network.optimizer.param_groups] == [0.01, 0.005]
    before = weights(network)
    network.scale_lr(0.0)
    train(network, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in weights(network).items())


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_is_not_finite_changes_nothing(fused: bool) -> None:
    network, undisturbed = (
        small_network(ComputeConfig(fused_adam=fused)),
        small_network(ComputeConfig(fused_adam=fused)),
    )
    train(network, 1.0, math.nan, 1.0)
    train(undisturbed, 1.0, 1.0)
    assert all(
        torch.equal(value, weights(undisturbed)[name]) for name, value in weights(network).items()
    )
    assert network.skipped_updates.read() == (1, 1)


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_run_takes_the_same_steps(fused: bool) -> None:
    uninterrupted, first, second = (
        small_network(ComputeConfig(fused_adam=fused)) for _ in range(3)
    )
    train(uninterrupted, 1.0, 0.5, 2.0, 1.0)
    train(first, 1.0, 0.5)
    second.module.load_state_dict(first.module.state_dict())
    second.load_optimizer(
        {name: tensor.clone() for name, tensor in first.optimizer_tensors().items()}
    )
    train(second, 2.0, 1.0)
    assert all(
        torch.equal(value, weights(uninterrupted)[name]) for name, value in weights(second).items()
    )
