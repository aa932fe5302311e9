"""Wrapping networks: one image at a time, and recipes without a critic."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.wrap import make_networks
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from colortrain.scale_down import scaled_down, without_downloads
from shards.errors import UserError
from tests.support.step_equivalence import RECIPES


@pytest.mark.parametrize(
    ("name", "batch_size", "accumulate", "passes"),
    [
        ("drouilhet_gan", 1, 1, False),
        ("drouilhet_gan", 2, 2, False),
        ("drouilhet_gan", 2, 1, True),
        ("nampouri_resnet18", 1, 1, False),
        ("arun_wgan_gp", 1, 1, True),
    ],
)
def test_one_value_per_channel_is_refused(
    name: str, batch_size: int, accumulate: int, passes: bool
) -> None:
    """Five halvings of 32 px leave one pixel, which has no variance.

    The batch size that arun's paper gives is one image, at a size that leaves more.
    """
    recipe = scaled_down(without_downloads(get_recipe(name)), 32, 4)
    deeper = ["generator.levels=5"] if name == "drouilhet_gan" else []
    recipe = override(recipe, [*deeper, f"batch_size={batch_size}"])
    layer, rng_state = nn.Conv2d(1, 1, 1), torch.get_rng_state()
    message = "cannot be trained on one image at a time at 32 px"
    with nullcontext() if passes else pytest.raises(UserError, match=message):
        make_networks(
            recipe, layer, layer, Accelerator(cpu=True), ComputeConfig(accumulate=accumulate)
        )
    assert torch.equal(torch.get_rng_state(), rng_state)


def test_without_a_critic_only_the_generator_is_wrapped() -> None:
    recipe = RECIPES["no_critic"]
    generator, critic = make_networks(
        recipe, *recipe.build_networks(), Accelerator(cpu=True), ComputeConfig()
    )
    assert critic is None
    assert generator.module.training
