"""What steps take besides time: memory, and floating-point operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from colortrain.lab import Batch
from colortrain.training.trainer import Trainer
from launch.benchmark.training.setup import endless
from launch.processes import memory_mb


def operations(trainer: Trainer, batches: list[Batch]) -> float:
    """Floating-point operations an image: matrix products and convolutions, forward and backward."""
    cycle = trainer.recipe.n_critic
    with FlopCounterMode(display=False) as counter:
        for batch, _ in zip(endless(batches), range(cycle), strict=False):
            trainer.take_step(batch)
    return counter.get_total_flops() / (cycle * len(batches[0].L))


def memory(
    make: Callable[[], Callable[[Batch], None]], batches: Callable[[], list[Batch]], steps: int
) -> float:
    """MB that `make`, which gives what takes a step, and some steps add to this process.

    On a GPU the most allocated, else the most resident.
    """
    before = memory_mb("VmHWM")
    take = make()
    for batch, _ in zip(endless(batches()), range(steps), strict=False):
        take(batch)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mb("VmHWM") - before
