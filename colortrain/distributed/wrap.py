"""Both networks of a recipe made ready to train, for this machine and these processes."""

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
    """Both networks ready to train; None for the critic of a recipe without one. A critic under a penalty is not compiled and keeps BatchNorms of its own: the
    gradient of its gradient goes through neither."""
    compute.check_share(recipe.batch_size, accelerator.num_processes)
    if num_normalised(recipe, accelerator.num_processes, compute.accumulate) == 1:
        check_single_pictures(recipe)
    penalised = bool(recipe.objective.penalties)
    if recipe.sync_batch_norm:
        generator = convert_sync_batch_norm(generator, accelerator.device)
        if critic is not None and not penalised:
            critic = convert_sync_batch_norm(critic, accelerator.device)
    compute.arrange(generator, compiles=True, recomputes=True)
    if critic is not None:
        compute.arrange(critic, compiles=not penalised, recomputes=False)
    stage = zero_stage()
    make = TrainableNetwork if stage is None else partial(ZeroTrainableNetwork, stage=stage)
    trainable = make(generator, recipe.generator_adam, accelerator, compute)
    if critic is None:
        return trainable, None
    return trainable, make(critic, recipe.critic_adam, accelerator, compute)


def num_normalised(recipe: Recipe, world: int, accumulate: int) -> int:
    """Pictures that a BatchNorm takes its statistics of."""
    return recipe.batch_size // (accumulate * (1 if recipe.sync_batch_norm else world))


def check_single_pictures(recipe: Recipe) -> None:
    """Raise `UserError` if a BatchNorm, given one picture at a time, would take statistics of a single value."""
    size, colours = recipe.size, recipe.codec.channels
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # shapes alone
        L, colour = torch.empty(1, 1, size, size), torch.empty(1, colours, size, size)
        try:
            recipe.generator.build()(L)
            if recipe.critic is not None:
                recipe.critic.build()(L, colour)
        except ValueError as error:
            raise UserError(
                f"recipe {recipe.name} cannot learn from one picture at a time at {size} px ({error}): "
                "give each process (and microbatch) two or more of a batch, or larger pictures"
            ) from None
