"""Layers that use statistics over images: of how many images, and what that changes.

BatchNorm and the minibatch standard deviation use the images of one process and one
microbatch. More processes or microbatches for the same batch therefore change a recipe
whose networks have such layers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from colortrain.models.norms import MinibatchStddev
from colortrain.recipe import Recipe
from shards.errors import UserError

BATCH_NORM = "BatchNorm"
STDDEV = "minibatch standard deviation"
_FEW_IMAGES = 8  # BatchNorm is less accurate with fewer: Wu and He 2018, figure 1


def synchronizes(recipe: Recipe) -> tuple[bool, bool]:
    """Return whether the generator's and the critic's BatchNorm span all processes."""
    # A gradient penalty requires second derivatives, which synchronized BatchNorm does
    # not support.
    penalised = bool(recipe.objective.penalties)
    return recipe.sync_batch_norm, recipe.sync_batch_norm and not penalised


def local_layers(recipe: Recipe) -> list[str]:
    """Return which layers of the networks use statistics of one process's images.

    The result holds `BATCH_NORM`, `STDDEV`, both or neither.
    """
    with torch.device("meta"):
        networks = recipe.build_networks()
    unsynced = [
        network
        for network, synced in zip(networks, synchronizes(recipe), strict=True)
        if network is not None and not synced
    ]
    found = [BATCH_NORM] if any(_has(_BatchNorm, network) for network in unsynced) else []
    deviates = any(network is not None and _has(MinibatchStddev, network) for network in networks)
    return [*found, STDDEV] if deviates else found


def _has(kind: type[nn.Module], network: nn.Module) -> bool:
    return any(isinstance(module, kind) for module in network.modules())


def small_batch_warning(recipe: Recipe, world_size: int, accumulate: int = 1) -> str | None:
    """Return a warning if a division of the batch changes a recipe noticeably.

    The batch is divided over `world_size` processes, and each part into `accumulate`
    microbatches. The warning is None unless layers use the statistics of fewer than
    eight images, and of fewer than the whole batch.
    """
    parts = world_size * accumulate
    seen = recipe.batch_size // parts
    if parts == 1 or seen >= _FEW_IMAGES:
        return None
    layers = local_layers(recipe)
    if not layers:
        return None
    division = f"{world_size} process{'es' if world_size > 1 else ''}"
    division += f" with --accumulate {accumulate}" if accumulate > 1 else ""
    advice = ["use fewer processes" if accumulate == 1 else "divide the batch into fewer parts"]
    if layers == [BATCH_NORM] and accumulate == 1:
        advice.append("--set sync_batch_norm=true")
    advice.append("a larger batch_size with suitable learning rates (docs/GPU.md)")
    return (
        f"warning: batch_size={recipe.batch_size} on {division}: {' and '.join(layers)} "
        f"{'sees' if len(layers) == 1 else 'see'} {seen} image{'s' if seen > 1 else ''} at a time "
        f"instead of {recipe.batch_size}, so scores differ from those of one process; "
        f"{', or '.join(advice)}"
    )


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
