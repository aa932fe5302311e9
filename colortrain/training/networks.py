"""Build the networks of a run with their initial weights."""

from __future__ import annotations

import torch
from torch import nn

from colortrain.distributed.compute import is_channels_last
from colortrain.models.pretrained import Pretrainable
from colortrain.recipe import Recipe
from colortrain.training.finetune import InitialWeights


def build_networks(
    recipe: Recipe, init: InitialWeights | None, *, resumes: bool
) -> tuple[nn.Module, nn.Module | None]:
    """Build a recipe's generator and critic with the initial weights of a run.

    The critic is None if the recipe has none. `init` holds the weights of another run
    to start with; `resumes` says that a checkpoint will be loaded. Raises UserError if
    weights cannot be loaded.
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
    """Return a copy of the generator that will hold the average of its weights.

    The copy is in eval mode, with `requires_grad` off, and in the memory format of the
    generator. The result is None if the recipe has no moving average.
    """
    if not recipe.ema:
        return None
    ema = recipe.generator.build()
    ema.load_state_dict(generator.state_dict())
    device = next(generator.parameters()).device
    if is_channels_last(generator):
        ema.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ema.to(device).eval().requires_grad_(False)
