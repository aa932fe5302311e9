"""Wrap a recipe's networks for training on this process's device and process group."""

from __future__ import annotations

from functools import partial

from accelerate import Accelerator
from torch import nn

from colortrain.distributed.batch_statistics import (
    batch_norm_images,
    check_single_images,
    synchronizes,
)
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.compute_defaults import choose
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.distributed.zero import ZeroTrainableNetwork, zero_stage
from colortrain.models.batch_invariant import convert_sync_batch_norm
from colortrain.recipe import Recipe


def make_networks(
    recipe: Recipe,
    generator: nn.Module,
    critic: nn.Module | None,
    accelerator: Accelerator,
    compute: ComputeConfig,
    *,
    steps: int = 0,
) -> tuple[TrainableNetwork, TrainableNetwork | None]:
    """Return the generator and the critic, wrapped for training, with their optimizers.

    The critic is None if the recipe has none. `steps` is the length of the whole run:
    networks of short runs are not compiled unless `compute` says so. Raises UserError
    if the local batch does not divide into equal microbatches, or if a BatchNorm would
    have a single value per channel.
    """
    compute.check_microbatches(recipe.batch_size, accelerator.num_processes)
    if batch_norm_images(recipe, accelerator.num_processes, compute.accumulate) == 1:
        check_single_images(recipe)
    generator_synced, critic_synced = synchronizes(recipe)
    if generator_synced:
        generator = convert_sync_batch_norm(generator, accelerator.device)
    if critic is not None and critic_synced:
        critic = convert_sync_batch_norm(critic, accelerator.device)
    generator_compute = choose(compute, generator, accelerator, steps)
    generator_compute.apply_to(generator, compiles=True, recomputes=True)
    stage = zero_stage()
    make = TrainableNetwork if stage is None else partial(ZeroTrainableNetwork, stage=stage)
    trainable = make(generator, recipe.generator_adam, accelerator, generator_compute)
    if critic is None:
        return trainable, None
    critic_compute = choose(compute, critic, accelerator, steps)
    # a gradient penalty requires second derivatives, which compiled networks lack
    critic_compute.apply_to(critic, compiles=not recipe.objective.penalties, recomputes=False)
    return trainable, make(critic, recipe.critic_adam, accelerator, critic_compute)
