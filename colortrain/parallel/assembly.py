"""Both networks of a recipe made ready to train, for this machine and these processes."""

from __future__ import annotations

from functools import partial

from accelerate import Accelerator
from torch import nn

from colortrain.layers import synchronised
from colortrain.parallel.engine import Engine
from colortrain.parallel.network import Network
from colortrain.parallel.zero import ZeroNetwork, zero_stage
from colortrain.recipe import Recipe


def make_networks(
    recipe: Recipe, generator: nn.Module, critic: nn.Module, accelerator: Accelerator, engine: Engine
) -> tuple[Network, Network]:
    """Both networks ready to train. A critic under a penalty is not compiled and keeps BatchNorms of its own: the
    gradient of its gradient goes through neither."""
    engine.check_share(recipe.batch_size, accelerator.num_processes)
    penalised = bool(recipe.objective.penalties)
    if recipe.sync_batch_norm:
        generator = synchronised(generator, accelerator.device)
        critic = critic if penalised else synchronised(critic, accelerator.device)
    engine.arrange(generator, compiles=True, recomputes=True)
    engine.arrange(critic, compiles=not penalised, recomputes=False)
    stage = zero_stage()
    make = Network if stage is None else partial(ZeroNetwork, stage=stage)
    return (
        make(generator, recipe.generator_adam, accelerator, engine),
        make(critic, recipe.critic_adam, accelerator, engine),
    )
