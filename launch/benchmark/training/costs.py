"""The memory and the floating-point operations of training steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from colortrain.lab import Batch
from colortrain.training.trainer import Trainer
from launch.benchmark.training.setup import cycle_batches
from launch.processes import memory_mb


def operations_per_image(trainer: Trainer, batches: list[Batch]) -> float:
    """Return the number of floating-point operations per image of a step.

    Matrix products and convolutions are counted, forward and backward.
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
    """Return the MB by which `make_step` and some steps increase this process's memory.

    `make_step` returns the function that takes a step. On a GPU, the maximum of the
    allocated memory is returned, otherwise the increase of the peak resident memory.
    """
    before = memory_mb("VmHWM")
    step = make_step()
    for batch, _ in zip(cycle_batches(load_batches()), range(steps), strict=False):
        step(batch)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mb("VmHWM") - before
