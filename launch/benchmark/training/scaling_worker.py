"""One of the training processes that `colortrain benchmark scaling` measures.

`launch.benchmark.scaling` starts them, with a JSON file that says what to measure:

    accelerate launch --config_file launch/accelerate/cpu.yaml \\
        -m launch.benchmark.training.scaling_worker request.json
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
from colortrain.losses.reconstruction import LossContext
from colortrain.recipe import load_recipe
from colortrain.runs.folder import open_data
from colortrain.training.step import train_step
from launch.benchmark.training.setup import TrainingSetup, cycle_batches, synchronize
from launch.processes import exit_process
from shards.errors import run_command
from shards.files import write_atomic

MODULE = "launch.benchmark.training.scaling_worker"
# Modes, which are also the names of rows.
WEAK, UNSYNCED, STRONG = (
    "one batch per process",
    "one batch per process, no gradient averaging",
    "one batch split among all",
)


class Rank:
    """One training process: its networks, and the batches for its steps."""

    def __init__(self, setup: TrainingSetup, accelerator: Accelerator) -> None:
        recipe = setup.recipe
        self.recipe, self.accelerator = recipe, accelerator
        torch.manual_seed(0)
        networks = recipe.build_networks()
        self.generator, self.critic = make_networks(recipe, *networks, accelerator, ComputeConfig())
        samples = open_data(setup.shards, recipe).train
        context = LossContext(
            accelerator.device,
            recipe.codec,
            lambda: ab_histogram(samples),
            self.generator.module,
            accelerator.autocast,
        )
        self.measures = [term.build(context) for term in recipe.objective.reconstruction]
        batches = setup.load_batches()
        size = recipe.batch_size // accelerator.num_processes
        own = slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)
        parts = [Batch(batch.L[own], batch.colour[own], batch.mix[own]) for batch in batches]
        self.batches = {
            WEAK: cycle_batches(batches),
            UNSYNCED: cycle_batches(batches),
            STRONG: cycle_batches(parts),
        }
        self.step = 0

    def take_steps(self, mode: str, steps: int) -> None:
        """Take `steps` training steps and wait until the device has finished them.

        mode: WEAK (every process uses whole batches), UNSYNCED (the same without
        averaging gradients) or STRONG (each batch is divided among the processes).
        """
        with ExitStack() as unsynced:
            if mode == UNSYNCED and self.accelerator.num_processes > 1:
                for network in filter(None, (self.generator, self.critic)):
                    unsynced.enter_context(self.accelerator.no_sync(network.wrapped))
            for _ in range(steps):
                batch = next(self.batches[mode])
                train_step(
                    self.generator, self.critic, self.recipe, self.measures, batch, self.step, 0.0
                )
                self.step += 1
        synchronize(self.accelerator.device)

    def time_steps(self, mode: str, steps: int) -> float:
        """Warm up, then return the seconds until every process has taken `steps` steps.

        mode: WEAK, UNSYNCED or STRONG.
        """
        self.take_steps(mode, self.recipe.n_critic)
        self.accelerator.wait_for_everyone()
        start = time.perf_counter()
        self.take_steps(mode, steps)
        self.accelerator.wait_for_everyone()
        return time.perf_counter() - start

    def num_steps_in(self, mode: str, seconds: float) -> int:
        """Return the number of steps that take about `seconds`.

        It is a multiple of `n_critic`, and the same on every process. mode: WEAK,
        UNSYNCED or STRONG.
        """
        cycle = self.recipe.n_critic
        steps = torch.tensor(
            max(1.0, seconds * cycle / self.time_steps(mode, cycle)), device=self.accelerator.device
        )
        return cycle * int(self.accelerator.reduce(steps / cycle, "mean").ceil().item())


def measure_rates(
    rank: Rank, modes: list[str], seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Measure every scaling mode once per round.

    Returns mode -> images per second of all processes together, one value per round.
    """
    world_size, batch = rank.accelerator.num_processes, rank.recipe.batch_size
    images = {WEAK: batch * world_size, UNSYNCED: batch * world_size, STRONG: batch}
    num_steps = {mode: rank.num_steps_in(mode, seconds) for mode in modes}
    rates: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode, steps in num_steps.items():
            rates[mode].append(images[mode] * steps / rank.time_steps(mode, steps))
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the training speeds that a JSON file requests, and return 0.

    argv: the path of the JSON file, which also says where the speeds are written.
    """
    (path,) = sys.argv[1:] if argv is None else argv
    request: dict[str, Any] = json.loads(Path(path).read_bytes())
    torch.set_num_threads(request["threads"])
    accelerator = make_accelerator()
    recipe = load_recipe(Path(request["recipe"]))
    setup = TrainingSetup(recipe, tuple(request["shards"]), Path(request["scratch"]))
    rank = Rank(setup, accelerator)
    rates = measure_rates(rank, request["modes"], request["seconds"], request["rounds"])
    if accelerator.is_main_process:
        write_atomic(Path(request["out"]), json.dumps(rates).encode())
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    exit_process(run_command(MODULE, main))
