"""One of several processes whose steps are timed together; `launch.benchmark.training.scaling` starts them.

accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.benchmark.training.scaling_worker WORDS.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from colortrain.data.loader import ab_histogram
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import Resources
from colortrain.recipe import load_recipe
from colortrain.runs.folder import open_data
from colortrain.training.step import train_step
from launch.benchmark.training.setup import Course, endless, wait_for
from launch.processes import exit_process
from shards.errors import run_command
from shards.files import write_atomic

DOOR = "launch.benchmark.training.scaling_worker"
WEAK, SILENT, STRONG = (
    "a whole batch each",
    "a whole batch each, nothing averaged",
    "one batch together",
)


class Rank:
    """Both networks of a recipe on this process, and the batches it steps on."""

    def __init__(self, on: Course, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = on.recipe, accelerator
        torch.manual_seed(0)
        networks = on.recipe.build_networks()
        self.generator, self.critic = make_networks(
            on.recipe, *networks, accelerator, ComputeConfig()
        )
        samples = open_data(on.shards, on.recipe).train
        bare = self.generator.module
        resources = Resources(
            accelerator.device, on.recipe.codec, lambda: ab_histogram(samples), bare
        )
        self.measures = [term.build(resources) for term in on.recipe.objective.reconstruction]
        batches = on.batches()
        share = on.recipe.batch_size // accelerator.num_processes
        mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
        shares = [Batch(batch.L[mine], batch.colour[mine], batch.mix[mine]) for batch in batches]
        self.batches = {WEAK: endless(batches), SILENT: endless(batches), STRONG: endless(shares)}
        self.step = 0

    def take(self, way: str, steps: int) -> None:
        """So many steps."""
        with ExitStack() as silence:
            if way == SILENT and self.accelerator.num_processes > 1:
                for network in filter(None, (self.generator, self.critic)):
                    silence.enter_context(self.accelerator.no_sync(network.wrapped))
            for _ in range(steps):
                batch = next(self.batches[way])
                train_step(
                    self.generator, self.critic, self.recipe, self.measures, batch, self.step, 0.0
                )
                self.step += 1
        wait_for(self.accelerator.device)

    def seconds(self, way: str, steps: int) -> float:
        """How long so many steps take until the last process has taken its last."""
        self.take(way, self.recipe.n_critic)
        self.accelerator.wait_for_everyone()
        began = time.perf_counter()
        self.take(way, steps)
        self.accelerator.wait_for_everyone()
        return time.perf_counter() - began

    def steps_in(self, way: str, seconds: float) -> int:
        """How many steps, in whole turns of both networks, fill the time; the same on every process."""
        cycle = self.recipe.n_critic
        turns = torch.tensor(
            max(1.0, seconds * cycle / self.seconds(way, cycle)), device=self.accelerator.device
        )
        return cycle * int(self.accelerator.reduce(turns / cycle, "mean").ceil().item())


def rates(rank: Rank, ways: list[str], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Images a second of all processes together, way by way, in turns."""
    world, batch = rank.accelerator.num_processes, rank.recipe.batch_size
    images = {WEAK: batch * world, SILENT: batch * world, STRONG: batch}
    counts = {way: rank.steps_in(way, seconds) for way in ways}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, steps in counts.items():
            found[way].append(images[way] * steps / rank.seconds(way, steps))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write what came out on the first process."""
    (words,) = sys.argv[1:] if argv is None else argv
    asked: dict[str, Any] = json.loads(Path(words).read_text())
    torch.set_num_threads(asked["threads"])
    accelerator = make_accelerator()
    on = Course(load_recipe(Path(asked["recipe"])), tuple(asked["shards"]), Path(asked["scratch"]))
    found = rates(Rank(on, accelerator), asked["ways"], asked["seconds"], asked["rounds"])
    if accelerator.is_main_process:
        write_atomic(Path(asked["out"]), json.dumps(found).encode())
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    exit_process(run_command(DOOR, main))
