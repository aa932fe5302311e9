"""Measure the fraction of the training time that each part of a step takes.

A part is, for instance, the critic's update.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import torch

from colortrain.lab import Batch
from colortrain.training.profiling import AVERAGE, CRITIC, GENERATOR, LOGGING, NO_PROFILER
from colortrain.training.trainer import Trainer
from launch.benchmark.training.setup import synchronize

DATA, REST = "data", "the rest"
PARTS = (DATA, CRITIC, GENERATOR, AVERAGE, LOGGING, REST)


class Stopwatch:
    """A profiler that sums up the seconds of each named part of the training steps.

    It waits for the device whenever a part starts or ends, so that asynchronous work
    counts for the part that started it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict.fromkeys(PARTS, 0.0)
        self.stack = [REST]
        self.since = time.perf_counter()

    def change(self) -> None:
        """Add the seconds since the last call to the innermost part that is running.

        It is called whenever a part of a training step starts or ends.
        """
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` block for the part `name` of a step."""
        self.change()
        self.stack.append(name)
        try:
            yield
        finally:
            self.change()
            self.stack.pop()


@contextmanager
def profiled(trainer: Trainer) -> Iterator[Stopwatch]:
    """Inside the `with` block, measure the trainer's steps with a new `Stopwatch`."""
    watch = Stopwatch(trainer.accelerator.device)
    trainer.profiler = watch
    try:
        yield watch
    finally:
        trainer.profiler = NO_PROFILER


def train_for(trainer: Trainer, seconds: float) -> dict[str, float]:
    """Train from the shards for `seconds`, after a warm-up of `n_critic` steps.

    Returns the fraction of the time, in [0, 1], that each part of a step takes, by
    name.
    """
    with closing(trainer.loader.batches()) as batches:
        for _ in range(trainer.recipe.n_critic):
            trainer.take_step(next(batches))
        with profiled(trainer) as watch:
            _take_steps(trainer, batches, watch, seconds)
    total = sum(watch.seconds.values())
    return {name: value / total for name, value in watch.seconds.items()}


def _take_steps(
    trainer: Trainer, batches: Generator[Batch], watch: Stopwatch, seconds: float
) -> None:
    watch.seconds = defaultdict(float, dict.fromkeys(PARTS, 0.0))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with watch.region(DATA):
            batch = next(batches)
        trainer.take_step(batch)
        if trainer.step % trainer.recipe.log_every == 0:
            with watch.region(LOGGING):
                trainer.metrics.compute(trainer.images, "benchmark")
    watch.change()
