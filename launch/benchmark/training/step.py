"""What a training step costs: beside a loop in plain PyTorch of the same mathematics, and with each flag switched on.

Everyone steps over the same few batches in turns. Then, from the shards, where the time goes; and what it all takes of
memory and of the processor's arithmetic.
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
from colortrain.lab import Batch
from colortrain.models.initialise import num_parameters
from colortrain.training.trainer import Trainer
from launch.benchmark.loading.seek import alone
from launch.benchmark.report import Report
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Contestant, Figures, Stream, in_turns
from launch.benchmark.training import costs, time_shares
from launch.benchmark.training.plain_loop import PlainLoop, is_writable
from launch.benchmark.training.setup import Course, course, endless, settings, wait_for, words
from launch.cli import CommandParser

_EXAMPLE = """\
example: nampouri's U-Net, thinner, at 64 px
  python -m launch.benchmark step --shards photos-64 --set size=64 --set generator.levels=6 \\
    --set generator.base_channels=32 --set critic.base_channels=32 --json step.json --plot step.png
"""
PLAIN, OURS, MATMUL, SHIPPED = (
    "plain PyTorch",
    "colortrain",
    "matrix product",
    "bf16, channels_last, compile",
)
_ASYNCHRONOUS = 10  # steps between two looks at the clock where a device works by itself


@dataclass(frozen=True)
class Variant:
    """How steps are computed, and what the row is called."""

    name: str
    precision: str = "no"
    compute: ComputeConfig = ComputeConfig()


def variants(compiles: bool) -> list[Variant]:
    """Every flag alone; on a GPU also what we would switch on together there."""
    bf16, last = (
        Variant("bf16", "bf16"),
        Variant("channels_last", compute=ComputeConfig(channels_last=True)),
    )
    found = [Variant(OURS), bf16, last, Variant("recompute", compute=ComputeConfig(recompute=True))]
    if compiles:
        found.append(Variant("compile", compute=ComputeConfig(compile=True)))
    if torch.cuda.is_available():
        return [*found, Variant(SHIPPED, "bf16", ComputeConfig(channels_last=True, compile=True))]
    return [*found, Variant("fused Adam", compute=ComputeConfig(fused_adam=True))]


def ours(on: Course, variant: Variant) -> Trainer:
    """A trainer that computes as the variant says."""
    return on.trainer(
        variant.name.replace(", ", "-"), precision=variant.precision, compute=variant.compute
    )


def plain(on: Course, device: torch.device) -> PlainLoop:
    """The loop by hand."""
    torch.manual_seed(on.recipe.seed)
    generator, critic = on.recipe.build_networks()
    assert critic is not None, "see is_writable"
    return PlainLoop(on.recipe, generator, critic, device)


def stepping(
    take: Callable[[Batch], None], batches: list[Batch], device: torch.device, cycle: int
) -> Stream:
    """Steps without end; a turn is as many as the networks' turns need, times ten on a GPU."""
    batch_of = endless(batches)
    turn = cycle * (_ASYNCHRONOUS if device.type == "cuda" else 1)
    while True:
        for _ in range(turn):
            batch = next(batch_of)
            take(batch)
        wait_for(device)
        yield turn * len(batch.L)


def and_logs(trainer: Trainer, batch: Batch) -> None:
    """A step as a run takes it, its log line included."""
    trainer.take_step(batch)
    if trainer.step % trainer.recipe.log_every == 0:
        trainer.metrics.compute(trainer.images, "benchmark")


@contextmanager
def as_convolutions(device: torch.device) -> Iterator[None]:
    """Products in TF32 on a GPU if convolutions are, as by default: a share of another arithmetic says nothing."""
    before = torch.backends.cuda.matmul.allow_tf32
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def products(device: torch.device, dtype: torch.dtype) -> Stream:
    """Floating-point operations of products of two square matrices, the most a processor does."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    while True:
        with as_convolutions(device):
            for _ in range(_ASYNCHRONOUS if device.type == "cuda" else 1):
                one @ other
        wait_for(device)
        yield 2.0 * side**3 * (_ASYNCHRONOUS if device.type == "cuda" else 1)


def section_steps(on: Course, report: Report, asked: argparse.Namespace) -> dict[str, Figures]:
    """Images a second of everyone on the same batches; the plain loop where one has been written for the recipe."""
    batches, cycle = on.batches(), on.recipe.n_critic
    device = batches[0].L.device
    takes: dict[str, Callable[[Batch], None]] = {}
    if is_writable(on.recipe):
        takes[PLAIN] = plain(on, device).step
    else:
        report.notes.append(
            f"no loop in plain PyTorch has been written for the objective of {on.recipe.name}"
        )
    flags = variants(asked.compile or device.type == "cuda")
    for variant in flags[:1] if asked.no_flags else flags:
        takes[variant.name] = partial(and_logs, ours(on, variant))
    clock = time.process_time if asked.cpu_time else time.perf_counter
    everyone = [
        Contestant(name, partial(stepping, take, batches, device, cycle), clock=clock)
        for name, take in takes.items()
    ]
    everyone.append(Contestant(MATMUL, partial(products, device, torch.float32), clock=clock))
    found = in_turns("steps", everyone, asked.seconds, asked.rounds)
    size, batch = on.recipe.size, on.recipe.batch_size
    kind = ", by CPU time" if asked.cpu_time else ""
    for name in takes:
        report.add(
            f"Steps of {on.recipe.name} at {size} px, batches of {batch}{kind}",
            name,
            found[name],
            "images/s",
        )
    return found


def judge(report: Report, found: dict[str, Figures]) -> None:
    """The step beside the loop by hand."""
    if PLAIN not in found:
        return
    report.judge(f"time of a step over {PLAIN}", found[PLAIN].over(found[OURS]), 1.02, at_most=True)
    for name, figures in found.items():
        if name not in (PLAIN, OURS, MATMUL):
            report.add(
                "Each flag's effect on the rate", name, figures.over(found[OURS]), f"x {OURS}"
            )
    if SHIPPED in found:
        report.judge(f"{SHIPPED}, over {PLAIN}", found[SHIPPED].over(found[PLAIN]), 1.3)


def section_shares(on: Course, report: Report, seconds: float) -> None:
    """Where the time goes when training from the shards."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    best = (
        Variant("shares", "bf16", ComputeConfig(channels_last=True))
        if device.type == "cuda"
        else Variant("shares")
    )
    found = time_shares.train_for(ours(on, best), seconds)
    for name, share in found.items():
        report.add(
            "Training from the shards, share of the time", name, Figures((100 * share,)), "%"
        )
    report.judge(
        "waiting for data", Figures((100 * found[time_shares.DATA],)), 1.0, at_most=True, unit="%"
    )


def section_arithmetic(on: Course, report: Report, found: dict[str, Figures]) -> None:
    """Floating-point operations of a step, a second, and beside what a matrix product reaches here."""
    trainer = ours(on, Variant("operations"))
    each = costs.operations(trainer, on.batches())
    report.notes.append(
        f"{each / 1e9:.3g} GFLOP an image: matrix products and convolutions, both networks' steps"
    )
    section = "Arithmetic, float32, in TF32 on a GPU"
    report.add(section, f"steps of {OURS}", found[OURS].times(each / 1e9), "GFLOP/s")
    report.add(section, MATMUL, found[MATMUL].times(1e-9), "GFLOP/s")
    share = found[OURS].times(each).over(found[MATMUL]).times(100)
    report.add("Share of what a matrix product reaches", OURS, share, "%")


def section_memory(on: Course, report: Report, asked: argparse.Namespace) -> None:
    """The most memory of a process that trains, each in one of its own."""
    which = "on the GPU" if torch.cuda.is_available() else "resident"
    rows: list[tuple[str, Variant | None]] = [(PLAIN, None)] if is_writable(on.recipe) else []
    rows += [
        (variant.name, variant)
        for variant in variants(False)
        if variant.name in (OURS, "recompute", SHIPPED)
    ]
    for name, variant in rows:
        here = replace(on, scratch=on.scratch / "memory")
        figures = Figures((alone(memory_of, here, variant, asked.threads),))
        report.add(f"Memory that training adds to a process, at most, {which}", name, figures, "MB")


def memory_of(on: Course, variant: Variant | None, threads: int | None) -> float:
    """MB of a plain loop, or of a variant, in this process."""
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def make() -> Callable[[Batch], None]:
        return plain(on, device).step if variant is None else ours(on, variant).take_step

    return costs.memory(make, on.batches, 3 * on.recipe.n_critic)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the words ask for."""
    asked = parser().parse_args(argv)
    with scratch_folder(asked.scratch) as scratch:
        on = course(asked, scratch)
        report = Report("step", settings(asked))
        found = section_steps(on, report, asked)
        judge(report, found)
        section_shares(on, report, asked.seconds * asked.rounds)
        section_arithmetic(on, report, found)
        section_memory(on, report, asked)
    with torch.device("meta"):
        generator, critic = on.recipe.build_networks()
    critic_text = "no critic" if critic is None else f"critic {num_parameters(critic):,}"
    report.notes.append(f"generator {num_parameters(generator):,} parameters, {critic_text}")
    report.publish(asked.json, asked.plot)
    return 0


def parser() -> CommandParser:
    """The words this benchmark understands."""
    found = words("step", __doc__ or "", _EXAMPLE)
    found.add_argument(
        "--compile", action="store_true", help="try --compile on a CPU too (minutes)"
    )
    found.add_argument(
        "--no-flags", action="store_true", help="only ours and the loop by hand: the fairest ratio"
    )
    found.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds, for a machine that others use"
    )
    return found
