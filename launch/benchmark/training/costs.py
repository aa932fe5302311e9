"""Measure the memory and the floating-point operations of training steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from colortrain.distributed.device import num_gpus
from colortrain.lab import Batch
from colortrain.training.trainer import Trainer
from launch.benchmark.training.setup import cycle_batches
from launch.processes import memory_mb


def operations_per_image(trainer: Trainer, batches: list[Batch]) -> float:
    """Return the floating-point operations of a training step, per image.

    Only matrix products and convolutions are counted, in the forward and backward
    passes of both networks, as a mean over `n_critic` steps.
    """
    cycle = trainer.recipe.n_critic
    with FlopCounterMode(display=False) as counter:
        for batch, _ in zip(cycle_batches(batches), range(cycle), strict=False):
            trainer.take_step(batch)
    return counter.get_total_flops() / (cycle * len(batches[0].L))


def memory_of_steps(
    make_step: Callable[[], Callable[[Batch], None]],
    load_batches: Callable[[], list[Batch]],
    steps: int,
) -> float:
    """Return the MB of memory that `steps` training steps add to this process.

    On a GPU this is the maximum of the allocated memory, on a CPU the increase of the
    peak resident memory. make_step: creates the networks, whose memory is included, and
    returns a function that takes one step on a batch.
    """
    before = memory_mb("VmHWM")
    step = make_step()
    for batch, _ in zip(cycle_batches(load_batches()), range(steps), strict=False):
        step(batch)
    if num_gpus():
        return torch.cuda.max_memory_allocated() / 1e6
    return memory_mb("VmHWM") - before
