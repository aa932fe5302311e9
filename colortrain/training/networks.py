"""The networks of a run with their initial weights, before they are wrapped for training."""

from __future__ import annotations

import torch
from torch import nn

from colortrain.models.pretrained import Pretrainable
from colortrain.recipe import Recipe
from colortrain.training.finetune import InitialWeights


def build_networks(
    recipe: Recipe, init: InitialWeights | None, *, resumes: bool
) -> tuple[nn.Module, nn.Module | None]:
    """Build a recipe's networks on the CPU and set their initial weights; no critic if it has none.

    The weights are random (from the recipe's seed), those of another run (`init`) or, where
    the recipe names any, published ones. A run that resumes takes its weights from its
    checkpoint afterwards, so neither is loaded here.
    """
    torch.manual_seed(recipe.seed)
    generator, critic = recipe.build_networks()
    if resumes:
        return generator, critic
    if init is not None:
        init.load(generator, critic)
    elif isinstance(recipe.generator, Pretrainable):
        # before anything is written: the published weights may not be available
        recipe.generator.pretrain(generator)
    return generator, critic


def make_average(recipe: Recipe, generator: nn.Module) -> nn.Module | None:
    """Return a copy of the generator for the moving average of its weights, None if the recipe has no EMA."""
    if not recipe.ema:
        return None
    average = recipe.generator.build()
    average.load_state_dict(generator.state_dict())
    device = next(generator.parameters()).device
    return average.to(device).eval().requires_grad_(False)
