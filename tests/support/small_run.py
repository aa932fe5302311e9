"""A run folder with small, untrained networks, for tests that need a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from colortrain.recipe import Recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import save_checkpoint

SETTINGS = ["size=32", "generator.levels=4", "generator.base_channels=4", "critic.base_channels=2"]


def small_run(run: Path, step: int = 3, seed: int = 0, settings: tuple[str, ...] = ()) -> Recipe:
    """Write the checkpoint of a step and return its recipe.

    It has averaged weights if the recipe has an EMA.
    """
    recipe = override(get_recipe("nampouri_unet"), [*SETTINGS, *settings])
    torch.manual_seed(seed)
    assert recipe.critic is not None
    generator, critic = recipe.generator.build(), recipe.critic.build()
    with torch.no_grad():
        generator(torch.randn(4, 1, 32, 32))  # running statistics other than 0 and 1
        generator.head.weight.mul_(150)  # colours far from gray
    parts = {"generator": generator.state_dict(), "critic": critic.state_dict()}
    if recipe.ema:
        parts["ema"] = {name: value * 0.5 for name, value in generator.state_dict().items()}
    save_checkpoint(run, step, parts, recipe, {"images": recipe.batch_size * step})
    return recipe
