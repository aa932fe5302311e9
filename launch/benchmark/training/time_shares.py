"""Where the seconds of a training go: each second belongs to the innermost of the parts that are under way."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from unittest import mock

import torch

from colortrain.lab import Batch
from colortrain.training import step, trainer
from colortrain.training.trainer import Trainer
from launch.benchmark.training.setup import wait_for

DATA, CRITIC, GENERATOR, AVERAGE, LOGGING, REST = (
    "data",
    "critic",
    "generator",
    "average",
    "logging",
    "the rest",
)
PARTS = (DATA, CRITIC, GENERATOR, AVERAGE, LOGGING, REST)


class Stopwatch:
    """Seconds by part; waits for the device at every change, so asynchronous work counts where it was asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict.fromkeys(PARTS, 0.0)
        self.stack = [REST]
        self.since = time.perf_counter()

    def change(self) -> None:
        """Give the time up to now to the innermost part."""
        wait_for(self.device)
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """While inside, time is this part's."""
        self.change()
        self.stack.append(name)
        try:
            yield
        finally:
            self.change()
            self.stack.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time is part `name`'s."""

        def inside(*inputs: Any, **words: Any) -> Any:
            with self.part(name):
                return function(*inputs, **words)

        return inside


@contextmanager
def watched(training: Trainer) -> Iterator[Stopwatch]:
    """A stopwatch on the parts of a trainer's steps."""
    watch = Stopwatch(training.accelerator.device)
    places = [
        (step, "critic_part", CRITIC),
        (step, "generator_part", GENERATOR),
        (step, "generated", GENERATOR),
        (training.critic, "update", CRITIC),
        (training.generator, "update", GENERATOR),
        (trainer, "move_average", AVERAGE),
        (training.meter, "add", LOGGING),
        (training.meter, "read", LOGGING),
    ]
    with ExitStack() as patches:
        for place, name, part in places:
            patches.enter_context(
                mock.patch.object(place, name, watch.timed(part, getattr(place, name)))
            )
        yield watch


def train_for(training: Trainer, seconds: float) -> dict[str, float]:
    """Train from the shards for a while; the share of the time that went into each part."""
    with closing(training.loader.batches()) as batches:
        for _ in range(training.recipe.n_critic):
            training.take_step(next(batches))
        with watched(training) as watch:
            _steps(training, batches, watch, seconds)
    total = sum(watch.seconds.values())
    return {name: value / total for name, value in watch.seconds.items()}


def _steps(training: Trainer, batches: Generator[Batch], watch: Stopwatch, seconds: float) -> None:
    watch.seconds = defaultdict(float, dict.fromkeys(PARTS, 0.0))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with watch.part(DATA):
            batch = next(batches)
        training.take_step(batch)
        if training.step % training.recipe.log_every == 0:
            training.meter.read(training.images, "benchmark")
    watch.change()
