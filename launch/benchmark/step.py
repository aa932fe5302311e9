"""Measure how fast training steps are, compared with a loop in plain PyTorch.

This includes options that change how steps are computed, the time of each part of a
step, floating-point operations and memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.device import default_device, num_gpus
from colortrain.lab import Batch
from colortrain.models.initialise import num_parameters
from colortrain.training.trainer import Trainer
from launch.benchmark.loading.seek import run_in_new_process
from launch.benchmark.report import Report, settings_of
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import CountStream, Measurements, Method, measure_in_turns
from launch.benchmark.training import costs, time_fractions
from launch.benchmark.training.plain_loop import PlainLoop, is_supported
from launch.benchmark.training.setup import (
    TrainingSetup,
    cycle_batches,
    make_setup,
    make_training_parser,
    synchronize,
)
from launch.cli import CommandParser

_EXAMPLE = """\
example: nampouri's U-Net with fewer channels at 64 px
  colortrain benchmark step --shards photos-64 --set size=64 --set generator.levels=6 \\
    --set generator.base_channels=32 --set critic.base_channels=32 \\
    --json step.json --plot step.png
"""
PLAIN, COLORTRAIN, MATMUL, COMBINED = (
    "plain PyTorch",
    "colortrain",
    "matrix product",
    "bf16, channels_last, compile",
)
MATRIX_SIDES = {"cuda": 8192, "cpu": 1024}  # of the products that are measured
_ASYNC_STEPS = 10  # steps between two reads of the clock on an asynchronous device


@dataclass(frozen=True)
class Variant:
    """One way in which colortrain can compute steps: a precision and compute options.

    name: the name of its row in the report.
    """

    name: str
    precision: str = "no"
    compute: ComputeConfig = ComputeConfig()


def variants(compile_too: bool) -> list[Variant]:
    """Return the variants of a training step that are to be measured.

    The first has the default options. compile_too: whether to include a variant with
    only torch.compile.
    """
    every_flag = [
        Variant(COLORTRAIN),
        Variant("bf16", "bf16", ComputeConfig(channels_last=False)),
        Variant("channels_last", compute=ComputeConfig(channels_last=True)),
        Variant("recompute", compute=ComputeConfig(recompute=True)),
    ]
    if compile_too:
        every_flag.append(Variant("compile", compute=ComputeConfig(compile=True)))
    if num_gpus():
        combined = ComputeConfig(channels_last=True, compile=True)
        return [*every_flag, Variant(COMBINED, "bf16", combined)]
    return [*every_flag, Variant("fused Adam", compute=ComputeConfig(fused_adam=True))]


def make_trainer(setup: TrainingSetup, variant: Variant) -> Trainer:
    """Return a trainer with the precision and compute options of `variant`."""
    return setup.make_trainer(
        variant.name.replace(", ", "-"), precision=variant.precision, compute=variant.compute
    )


def make_plain_loop(setup: TrainingSetup, device: torch.device) -> PlainLoop:
    """Return a loop in plain PyTorch that trains the same recipe as colortrain."""
    recipe = setup.recipe
    torch.manual_seed(recipe.seed)
    generator, critic = recipe.build_networks()
    assert critic is not None, "see is_supported"
    return PlainLoop(recipe, generator, critic, device)


def stream_steps(
    take_step: Callable[[Batch], None], batches: list[Batch], device: torch.device, cycle: int
) -> CountStream:
    """Take training steps without end; yield the number of images since the last yield.

    cycle: number of steps that together update both networks (`n_critic`).
    """
    batch_iterator = cycle_batches(batches)
    steps = cycle * (_ASYNC_STEPS if device.type == "cuda" else 1)
    while True:
        for _ in range(steps):
            batch = next(batch_iterator)
            take_step(batch)
        synchronize(device)
        yield steps * len(batch.L)


def step_and_log(trainer: Trainer, batch: Batch) -> None:
    """Take a training step; every `log_every` steps, also compute the logged values."""
    trainer.take_step(batch)
    if trainer.step % trainer.recipe.log_every == 0:
        trainer.metrics.compute(trainer.images, "benchmark")


@contextmanager
def tf32_like_convolutions(device: torch.device) -> Iterator[None]:
    """Inside the `with` block, use TF32 for matrix products if convolutions use it.

    Rates of steps, which are mainly convolutions, are compared with rates of products.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def stream_products(device: torch.device, dtype: torch.dtype) -> CountStream:
    """Multiply large square matrices without end, to measure the speed of the device.

    Yields the number of floating-point operations since the last yield.
    """
    side = MATRIX_SIDES[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    products = _ASYNC_STEPS if device.type == "cuda" else 1
    while True:
        with tf32_like_convolutions(device):
            for _ in range(products):
                left @ right
        synchronize(device)
        yield 2.0 * side**3 * products


def section_steps(
    setup: TrainingSetup, report: Report, args: argparse.Namespace
) -> dict[str, Measurements]:
    """Measure the rate of training steps, in colortrain and in a loop in plain PyTorch.

    Adds a row for each of them to the report. Returns the rates by name, in images per
    second, with one value per round; the rate of matrix products, `MATMUL`, is in
    floating-point operations per second.
    """
    recipe, batches = setup.recipe, setup.load_batches()
    device = batches[0].L.device
    steps: dict[str, Callable[[Batch], None]] = {}
    if is_supported(recipe):
        steps[PLAIN] = make_plain_loop(setup, device).step
    else:
        report.notes.append(
            f"the loop in plain PyTorch does not support the objective of {recipe.name}"
        )
    flags = variants(args.compile or device.type == "cuda")
    for variant in flags[:1] if args.no_flags else flags:
        steps[variant.name] = partial(step_and_log, make_trainer(setup, variant))
    clock = time.process_time if args.cpu_time else time.perf_counter
    methods = [
        Method(name, partial(stream_steps, step, batches, device, recipe.n_critic), clock=clock)
        for name, step in steps.items()
    ]
    products = partial(stream_products, device, torch.float32)
    methods.append(Method(MATMUL, products, clock=clock))
    rates = measure_in_turns("steps", methods, args.seconds, args.rounds)
    kind = ", CPU time" if args.cpu_time else ""
    section = f"Steps of {recipe.name} at {recipe.size} px, batches of {recipe.batch_size}{kind}"
    for name in steps:
        report.add_row(section, name, rates[name], "images/s")
    return rates


def compare_with_plain_loop(report: Report, rates: dict[str, Measurements]) -> None:
    """Add to the report how colortrain's steps compare with the loop in plain PyTorch.

    rates: images per second by name. Without a rate of the plain loop, nothing is
    added.
    """
    if PLAIN not in rates:
        return
    ratio = rates[PLAIN].over(rates[COLORTRAIN])
    report.add_goal(f"time of a step over {PLAIN}", ratio, 1.02, at_most=True)
    for name, measurements in rates.items():
        if name not in (PLAIN, COLORTRAIN, MATMUL):
            effect = measurements.over(rates[COLORTRAIN])
            report.add_row("Effect of each flag on the rate", name, effect, f"x {COLORTRAIN}")
    if COMBINED in rates:
        report.add_goal(f"{COMBINED}, over {PLAIN}", rates[COMBINED].over(rates[PLAIN]), 1.3)


def section_time(setup: TrainingSetup, report: Report, seconds: float) -> None:
    """Train from the shards for `seconds`; report the time of each part of a step."""
    variant = Variant("fractions")
    if num_gpus():
        variant = Variant("fractions", "bf16", ComputeConfig(channels_last=True))
    fractions = time_fractions.train_for(make_trainer(setup, variant), seconds)
    for name, fraction in fractions.items():
        report.add_row(
            "Training from the shards, fraction of the time",
            name,
            Measurements((100 * fraction,)),
            "%",
        )
    waiting = Measurements((100 * fractions[time_fractions.DATA],))
    report.add_goal("waiting for data", waiting, 1.0, at_most=True, unit="%")


def section_arithmetic(
    setup: TrainingSetup, report: Report, rates: dict[str, Measurements]
) -> None:
    """Compare the floating-point operations per second of steps and of matrix products.

    rates: by name, images per second of steps and operations per second of products.
    """
    trainer = make_trainer(setup, Variant("operations"))
    operations = costs.operations_per_image(trainer, setup.load_batches())
    report.notes.append(
        f"{operations / 1e9:.3g} GFLOP per image: matrix products and convolutions, "
        "the steps of both networks"
    )
    section = "Arithmetic, float32, in TF32 on a GPU"
    steps = rates[COLORTRAIN].scaled(operations / 1e9)
    report.add_row(section, f"steps of {COLORTRAIN}", steps, "GFLOP/s")
    report.add_row(section, MATMUL, rates[MATMUL].scaled(1e-9), "GFLOP/s")
    fraction = rates[COLORTRAIN].scaled(operations).over(rates[MATMUL]).scaled(100)
    report.add_row("Fraction of the rate of a matrix product", COLORTRAIN, fraction, "%")


def section_memory(setup: TrainingSetup, report: Report, args: argparse.Namespace) -> None:
    """Measure the peak memory of training; each measurement has its own process."""
    kind = "on the GPU" if num_gpus() else "resident"
    rows: list[tuple[str, Variant | None]] = [(PLAIN, None)] if is_supported(setup.recipe) else []
    rows += [
        (variant.name, variant)
        for variant in variants(False)
        if variant.name in (COLORTRAIN, "recompute", COMBINED)
    ]
    for name, variant in rows:
        own_setup = replace(setup, scratch=setup.scratch / "memory")
        memory = run_in_new_process(memory_of, own_setup, variant, args.threads)
        section = f"Memory that training adds to a process, at most, {kind}"
        report.add_row(section, name, Measurements((memory,)), "MB")


def memory_of(setup: TrainingSetup, variant: Variant | None, threads: int | None) -> float:
    """Return the MB of memory that training a few steps adds to this process.

    variant: how colortrain computes the steps, or None for the loop in plain PyTorch.
    """
    if threads:
        torch.set_num_threads(threads)

    def make_step() -> Callable[[Batch], None]:
        if variant is None:
            return make_plain_loop(setup, default_device()).step
        return make_trainer(setup, variant).take_step

    return costs.memory_of_steps(make_step, setup.load_batches, 3 * setup.recipe.n_critic)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print and save its report, and return the exit status."""
    args = make_parser().parse_args(argv)
    with scratch_folder(args.scratch) as scratch:
        setup = make_setup(args, scratch)
        report = Report("step", settings_of(args))
        rates = section_steps(setup, report, args)
        compare_with_plain_loop(report, rates)
        section_time(setup, report, args.seconds * args.rounds)
        section_arithmetic(setup, report, rates)
        section_memory(setup, report, args)
    with torch.device("meta"):
        generator, critic = setup.recipe.build_networks()
    critic_size = "no critic" if critic is None else f"critic {num_parameters(critic):,}"
    report.notes.append(f"generator {num_parameters(generator):,} parameters, {critic_size}")
    report.publish(args.json, args.plot)
    return 0


def make_parser() -> CommandParser:
    """Return the parser of this benchmark's options."""
    parser = make_training_parser("step", __doc__ or "", _EXAMPLE)
    parser.add_argument(
        "--compile", action="store_true", help="measure `compile` on a CPU too (takes minutes)"
    )
    parser.add_argument(
        "--no-flags",
        action="store_true",
        help="measure only colortrain and the plain loop, for the most reliable ratio",
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure CPU time instead of wall time, on a busy machine",
    )
    return parser
