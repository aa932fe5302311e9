"""Initial weights: from the seed, from published weights, and of the moving average."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from colortrain.training.networks import build_networks, make_ema
from tests.support.networks import assert_equal
from tests.support.scaled_recipes import scaled


def test_weights_depend_on_the_seed_alone() -> None:
    recipe = scaled(get_recipe("nampouri_unet"))
    torch.manual_seed(99)
    generator, critic = build_networks(recipe, None, resumes=False)
    same, _ = build_networks(recipe, None, resumes=True)
    other, _ = build_networks(dataclasses.replace(recipe, seed=1), None, resumes=False)
    assert critic is not None
    assert_equal(generator.state_dict(), same.state_dict())
    assert any(
        not torch.equal(value, other.state_dict()[name])
        for name, value in generator.state_dict().items()
    )


@pytest.mark.parametrize("resumes", [False, True])
def test_published_weights_are_loaded_unless_a_run_resumes(
    resumes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[nn.Module] = []

    def pretrain(config: Any, module: nn.Module) -> None:
        loaded.append(module)

    monkeypatch.setattr(ResNet18UNetConfig, "pretrain", pretrain)
    generator, _ = build_networks(get_recipe("nampouri_resnet18"), None, resumes=resumes)
    assert loaded == ([] if resumes else [generator])


def test_the_average_starts_as_a_copy_without_gradients() -> None:
    recipe = override(scaled(get_recipe("nampouri_unet")), ["ema.half_life=20"])
    generator, _ = build_networks(recipe, None, resumes=False)
    ema = make_ema(recipe, generator)
    assert ema is not None
    assert_equal(ema.state_dict(), generator.state_dict())
    assert not ema.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert make_ema(scaled(get_recipe("nampouri_unet")), generator) is None


def test_the_average_has_the_memory_format_of_the_generator() -> None:
    """Tensors with different strides are averaged one by one, and converted."""
    recipe = override(scaled(get_recipe("nampouri_unet")), ["ema.half_life=20"])
    generator, _ = build_networks(recipe, None, resumes=False)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = make_ema(recipe, generator)
    assert ema is not None
    strides = [[each.stride() for each in module.parameters()] for module in (ema, generator)]
    assert strides[0] == strides[1]
    assert_equal(ema.state_dict(), generator.state_dict())
