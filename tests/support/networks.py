"""Small trainable networks and batches for tests of steps, on one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.recipe import Recipe
from tests.support.step_equivalence import RECIPES, make_batch


def recipe_with_dropout() -> Recipe:
    """Return a recipe with BatchNorm in both networks and dropout in the generator."""
    return dataclasses.replace(
        RECIPES["bce"],
        generator=UNetConfig(base_channels=4, levels=4),
        critic=PatchCriticConfig(base_channels=4, strided_layers=2),
    )


def make_pair(
    recipe: Recipe, compute: ComputeConfig | None = None, *, cpu: bool = True
) -> tuple[TrainableNetwork, TrainableNetwork]:
    """Return the generator and the critic of a recipe with weights from seed 0.

    They are on the CPU, or without `cpu` on accelerate's device.
    """
    torch.manual_seed(0)
    generator, critic = make_networks(
        recipe, *recipe.build_networks(), Accelerator(cpu=cpu), compute or ComputeConfig()
    )
    assert critic is not None
    return generator, critic


def float_batch(step: int) -> Batch:
    """Return the global batch of a step in float32, L (8, 1, 32, 32)."""
    batch = make_batch(2, step)
    return Batch(batch.L.float(), batch.colour.float(), batch.mix.float())


def l1_loss(fake: Tensor, batch: Batch) -> Tensor:
    """Return the mean absolute error of the colours, a scalar."""
    return (fake - batch.colour).abs().mean()


def copy_state(network: TrainableNetwork) -> dict[str, Tensor]:
    """Return a copy of the module's state dict."""
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Assert that two state dicts have the same names and bits."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
