"""Compute options: refused combinations, activation checkpointing, the same steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.models.batch_invariant import dropout_keys, image_keys
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipes import RECIPES, get_recipe
from colortrain.training.step import train_step
from shards.errors import UserError
from tests.support.networks import (
    assert_equal,
    float_batch,
    l1_loss,
    make_pair,
    recipe_with_dropout,
)
from tests.support.scaled_recipes import scaled

CPU = torch.device("cpu")


def test_a_local_batch_that_cannot_be_divided_is_refused() -> None:
    message = r"--accumulate 3 does not divide the 4 images .* of 2 processes .* \[1, 2, 4\]"
    with pytest.raises(UserError, match=message):
        ComputeConfig(accumulate=3).check_microbatches(8, 2)
    ComputeConfig(accumulate=2).check_microbatches(8, 2)
    with pytest.raises(UserError, match="leave out --recompute"):
        ComputeConfig(compile=True, recompute=True)
    with pytest.raises(UserError, match="at least 1"):
        ComputeConfig(accumulate=0)


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Collect the bytes of each tensor that autograd keeps for the backward pass."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


GENERATORS = [
    name
    for name in sorted(RECIPES)
    if name not in ("nazeri_gan_places", "nazeri_unet_l2", "valentini_cgan")
]


@pytest.mark.parametrize("name", GENERATORS)
def test_recomputing_changes_nothing_but_memory(name: str) -> None:
    """Gradients, statistics and dropout are bit-identical, with fewer bytes kept."""
    generator = scaled(get_recipe(name)).generator
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        compute = ComputeConfig(recompute=recompute)
        module = compute.apply_to(generator.build(), compiles=True, recomputes=True)
        torch.manual_seed(1)
        with saved_bytes() as sizes, dropout_keys(module, image_keys(0, 0, 0, 4)):
            generated = module(torch.rand(4, 1, 64, 64))
        generated.square().mean().backward()
        with torch.no_grad():
            module(torch.rand(2, 1, 64, 64))  # keys of four images must no longer be in use
        gradients = {
            f"{name} gradient": parameter.grad for name, parameter in module.named_parameters()
        }
        results.append(({**module.state_dict(), **gradients}, sum(sizes)))
    (plain, plain_bytes), (recomputed, recomputed_bytes) = results
    assert_equal(plain, recomputed)
    limit = 1 if isinstance(generator, ResNet18UNetConfig) else 0.8
    assert recomputed_bytes < limit * plain_bytes


@pytest.mark.parametrize(
    "change", [{"channels_last": True}, {"fused_adam": True}, {"recompute": True}]
)
def test_options_change_losses_by_rounding_only(change: dict[str, bool]) -> None:
    recipe = recipe_with_dropout()
    results = []
    for compute in (ComputeConfig(), ComputeConfig(**change)):
        pair = make_pair(recipe, compute)
        for step in range(2):
            losses = train_step(*pair, recipe, [l1_loss], float_batch(step), step, 0.0)
        results.append(losses)
    for name, value in results[0].items():
        assert results[1][name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_deterministic_refuses_other_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    ComputeConfig().apply_to_process(CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    ComputeConfig(deterministic=True).apply_to_process(CPU)
    try:
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG")
