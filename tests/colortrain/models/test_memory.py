"""Networks and batches that are too large are refused before they take memory."""

from __future__ import annotations

import resource
from dataclasses import replace

import psutil
import pytest
import torch

from colortrain.models.memory import (
    build_network,
    check_batch,
    check_fields,
    check_networks,
    machine_memory,
    num_bytes,
)
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipes import RECIPES, get_recipe
from shards.errors import UserError
from tests.support.scaled_recipes import scaled

SMALL = UNetConfig(base_channels=4, levels=4)


@pytest.mark.parametrize("name", RECIPES)
def test_the_size_is_that_of_the_network_and_no_random_number_is_drawn(name: str) -> None:
    recipe = scaled(get_recipe(name))
    for config in recipe.network_configs.values():
        torch.manual_seed(0)
        size, drawn = num_bytes(config), torch.rand(1)
        assert size == sum(value.nbytes for value in config.build().state_dict().values())
        torch.manual_seed(0)
        assert torch.equal(drawn, torch.rand(1))


def test_networks_up_to_the_memory_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    size = num_bytes(SMALL)
    monkeypatch.setattr("colortrain.models.memory.machine_memory", lambda: 8 * size)
    check_networks([SMALL, SMALL], "training it", copies=4)
    monkeypatch.setattr("colortrain.models.memory.machine_memory", lambda: 8 * size - 1)
    with pytest.raises(UserError, match=r"^training it takes at least 0.0 GB, this machine has"):
        check_networks([SMALL, SMALL], "training it", copies=4)
    with torch.device("meta"):
        check_networks([SMALL, SMALL], "nothing", copies=4)


def test_a_huge_network_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"UNetConfig takes at least .* use fewer base_channels"):
        build_network(replace(SMALL, base_channels=60_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(SMALL, base_channels=65_537), "base_channels must be at most 65,536, got 65537"),
        (replace(SMALL, levels=10**9), "levels must be at most 256"),
        (ResidualUNetConfig(blocks=257), "blocks must be at most 256"),
        (SquareCriticConfig(inputs=2**62), "inputs must be at most 65,536"),
    ],
)
def test_absurd_fields_are_refused(config: UNetConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fields(config)
    with pytest.raises(UserError, match=f"{type(config).__name__}: {message}"):
        build_network(config)


def test_the_memory_is_that_of_this_machine() -> None:
    assert 2**28 < machine_memory() <= psutil.virtual_memory().total


def test_a_batch_larger_than_the_memory_is_refused() -> None:
    check_batch(16, 3 * 256 * 256)
    with pytest.raises(UserError, match=r"1,000,000,000 images per process .* smaller batch_size"):
        check_batch(10**9, 15_360)
