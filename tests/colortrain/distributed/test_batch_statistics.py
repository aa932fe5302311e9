"""Layers that use statistics over images, and warnings about dividing a batch."""

from __future__ import annotations

import dataclasses

import pytest

from colortrain.distributed.batch_statistics import (
    BATCH_NORM,
    STDDEV,
    batch_norm_images,
    local_layers,
    small_batch_warning,
    synchronizes,
)
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from tests.support.step_equivalence import RECIPES


def test_synchronised_statistics_are_over_all_processes() -> None:
    alone, together = (
        dataclasses.replace(RECIPES["bce"], batch_size=8, sync_batch_norm=sync)
        for sync in (False, True)
    )
    cases = ((1, 1), (4, 1), (4, 2))
    assert [batch_norm_images(alone, world, accumulate) for world, accumulate in cases] == [8, 2, 1]
    assert [batch_norm_images(together, *case) for case in cases] == [8, 8, 4]


@pytest.mark.parametrize(
    ("name", "alone", "synced"),
    [
        ("flagship", [], []),
        ("nampouri_unet", [BATCH_NORM], []),
        ("drouilhet_wgan_gp", [BATCH_NORM], []),
        ("drouilhet_progan", [BATCH_NORM, STDDEV], [STDDEV]),
    ],
)
def test_layers_that_use_the_images_of_a_process(
    name: str, alone: list[str], synced: list[str]
) -> None:
    recipe = get_recipe(name)
    assert local_layers(recipe) == alone
    assert local_layers(override(recipe, ["sync_batch_norm=true"])) == synced


def test_a_critic_with_a_gradient_penalty_keeps_its_own_statistics() -> None:
    recipe = override(get_recipe("drouilhet_wgan_gp"), ["sync_batch_norm=true"])
    recipe = dataclasses.replace(recipe, critic=get_recipe("drouilhet_gan").critic)
    assert synchronizes(recipe) == (True, False)
    assert local_layers(recipe) == [BATCH_NORM]
    assert synchronizes(get_recipe("drouilhet_gan")) == (False, False)


@pytest.mark.parametrize(
    ("name", "processes", "accumulate", "seen"),
    [
        ("nampouri_unet", 1, 1, None),
        ("nampouri_unet", 2, 1, None),
        ("nampouri_unet", 16, 1, "16 processes: BatchNorm sees 1 image at a time instead of 16"),
        ("nampouri_unet", 1, 4, "1 process with --accumulate 4: BatchNorm sees 4 images at a"),
        ("nampouri_unet", 2, 2, "2 processes with --accumulate 2: BatchNorm sees 4 images at a"),
        ("drouilhet_progan", 4, 1, "BatchNorm and minibatch standard deviation see 4 images at"),
        ("nazeri_gan", 16, 1, None),
        ("nazeri_gan", 32, 1, "32 processes: BatchNorm sees 4 images at a time instead of 128"),
        ("arun_wgan_gp", 1, 1, None),
        ("flagship", 8, 1, None),
    ],
)
def test_a_batch_of_which_few_images_are_seen_at_a_time_gives_a_warning(
    name: str, processes: int, accumulate: int, seen: str | None
) -> None:
    text = small_batch_warning(get_recipe(name), processes, accumulate)
    assert (text is None) == (seen is None)
    assert seen is None or seen in str(text)
    synchronizable = accumulate == 1 and "BatchNorm sees" in str(text)
    assert ("sync_batch_norm=true" in str(text)) == synchronizable
