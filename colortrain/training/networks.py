"""Build the networks of a run with their initial weights."""

from __future__ import annotations

import torch
from torch import nn

from colortrain.models.pretrained import Pretrainable
from colortrain.recipe import Recipe
from colortrain.training.finetune import InitialWeights


def build_networks(
    recipe: Recipe, init: InitialWeights | None, *, resumes: bool
) -> tuple[nn.Module, nn.Module | None]:
    """Build the generator and the critic (None if there is none) with initial weights.

    They are on the CPU. The weights are random, from the recipe's seed; or those of
    another run (`init`); or published ones if the recipe names any. A run that resumes
    loads its checkpoint afterwards, so it only gets random weights here. Raises
    UserError if weights cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    generator, critic = recipe.build_networks()
    if resumes:
        return generator, critic
    if init is not None:
        init.load(generator, critic)
    elif isinstance(recipe.generator, Pretrainable):
        # raises before the run writes anything if the weights cannot be downloaded
        recipe.generator.pretrain(generator)
    return generator, critic


def make_ema(recipe: Recipe, generator: nn.Module) -> nn.Module | None:
    """Return a copy of the generator for its moving average; None if there is none.

    The copy is on the generator's device, in eval mode, with `requires_grad` off.
    """
    if not recipe.ema:
        return None
    ema = recipe.generator.build()
    ema.load_state_dict(generator.state_dict())
    device = next(generator.parameters()).device
    return ema.to(device).eval().requires_grad_(False)
