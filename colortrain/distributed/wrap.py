"""Wrap a recipe's networks for training on this process's device and process group."""

from __future__ import annotations

from functools import partial

import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.distributed.zero import ZeroTrainableNetwork, zero_stage
from colortrain.models.batch_invariant import convert_sync_batch_norm
from colortrain.recipe import Recipe
from shards.errors import UserError


def make_networks(
    recipe: Recipe,
    generator: nn.Module,
    critic: nn.Module | None,
    accelerator: Accelerator,
    compute: ComputeConfig,
) -> tuple[TrainableNetwork, TrainableNetwork | None]:
    """Return the generator and the critic, wrapped for training, with their optimizers.

    The critic is None if the recipe has none. Raises UserError if the local batch does
    not divide into equal microbatches, or if a BatchNorm would have a single value per
    channel.
    """
    compute.check_microbatches(recipe.batch_size, accelerator.num_processes)
    if batch_norm_images(recipe, accelerator.num_processes, compute.accumulate) == 1:
        check_single_images(recipe)
    # A gradient penalty requires second derivatives, which neither compiled networks
    # nor synchronized BatchNorm support.
    penalised = bool(recipe.objective.penalties)
    if recipe.sync_batch_norm:
        generator = convert_sync_batch_norm(generator, accelerator.device)
        if critic is not None and not penalised:
            critic = convert_sync_batch_norm(critic, accelerator.device)
    compute.apply_to(generator, compiles=True, recomputes=True)
    if critic is not None:
        compute.apply_to(critic, compiles=not penalised, recomputes=False)
    stage = zero_stage()
    make = TrainableNetwork if stage is None else partial(ZeroTrainableNetwork, stage=stage)
    trainable = make(generator, recipe.generator_adam, accelerator, compute)
    if critic is None:
        return trainable, None
    return trainable, make(critic, recipe.critic_adam, accelerator, compute)


def batch_norm_images(recipe: Recipe, world_size: int, accumulate: int) -> int:
    """Return the number of images over which BatchNorm computes its statistics."""
    return recipe.batch_size // (accumulate * (1 if recipe.sync_batch_norm else world_size))


def check_single_images(recipe: Recipe) -> None:
    """Raise UserError if the recipe's networks cannot train on one image at a time."""
    # torch raises ValueError if a BatchNorm gets a single value per channel, for
    # instance at a bottleneck of 1x1
    size, channels = recipe.size, recipe.codec.channels
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # shapes alone
        L, colour = torch.empty(1, 1, size, size), torch.empty(1, channels, size, size)
        try:
            recipe.generator.build()(L)
            if recipe.critic is not None:
                recipe.critic.build()(L, colour)
        except ValueError as error:
            raise UserError(
                f"recipe {recipe.name} cannot be trained on one image at a time at {size} px "
                f"({error}): give each process (and microbatch) at least two images of a batch, "
                "or use larger images"
            ) from None
