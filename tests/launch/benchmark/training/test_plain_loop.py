"""The loop in plain PyTorch computes what colortrain computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.wrap import make_networks
from colortrain.losses.reconstruction import LossContext
from colortrain.recipe import override
from colortrain.recipes import RECIPES, get_recipe
from colortrain.training.step import train_step
from launch.benchmark.training.plain_loop import PlainLoop, is_supported
from tests.support.benchmark_setup import SMALL
from tests.support.step_equivalence import make_batch

PENALISED = [
    "size=32",
    "generator.depth=2",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "n_critic=2",
]


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nampouri_unet", [*SMALL, "generator.dropout=0"]),
        ("valentini_wgan", PENALISED),
        ("valentini_wgan_literal", PENALISED),
    ],
)
def test_the_plain_loop_computes_what_colortrain_computes(
    name: str, changes: list[str], float64: None
) -> None:
    recipe = override(get_recipe(name), changes)
    assert is_supported(recipe)
    accelerator, results = Accelerator(cpu=True), []
    for in_plain_pytorch in (False, True):
        torch.manual_seed(0)
        generator, critic = recipe.build_networks()
        assert critic is not None
        built = generator, critic
        context = LossContext(accelerator.device, recipe.codec, lambda: np.zeros((23, 23)))
        measures = [term.build(context) for term in recipe.objective.reconstruction]
        if in_plain_pytorch:
            loop = PlainLoop(recipe, *built, accelerator.device)
            for step in range(4):
                loop.step(make_batch(2, step))
        else:
            networks = make_networks(recipe, *built, accelerator, ComputeConfig())
            for step in range(4):
                train_step(*networks, recipe, measures, make_batch(2, step), step, 0.0)
        results.append([value for module in built for value in module.state_dict().values()])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


def test_other_objectives_are_not_supported() -> None:
    """Rebalanced, perceptual and squared losses, clipped gradients, other penalties."""
    supported = {name for name in RECIPES if is_supported(get_recipe(name))}
    assert supported >= {
        "nampouri_unet",
        "nampouri_resnet18",
        "valentini_cgan",
        "valentini_wgan",
        "valentini_wgan_literal",
    }
    assert not supported & {
        "drouilhet_gan",
        "drouilhet_wgan_gp",
        "drouilhet_progan",
        "arun_wgan_gp",
        "nazeri_unet_l2",
    }
    for changes in (
        ["critic_adam.clip=1"],
        ["critic=none", "objective.adversarial_weight=0"],
    ):
        assert not is_supported(override(get_recipe("nampouri_unet"), changes))
