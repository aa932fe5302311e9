"""Measure how much time checkpoints cost a training run, and how long a resume takes.

The cost of a checkpoint is the time for which it blocks the training loop, plus the
time by which its writing in a background thread slows down the steps.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from colortrain.recipe import save_recipe
from colortrain.runs.checkpoint import latest_checkpoint
from colortrain.runs.layout import recipe_file
from launch.benchmark.report import Report, settings_of
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Measurements
from launch.benchmark.training.setup import (
    TrainingSetup,
    cycle_batches,
    make_setup,
    make_training_parser,
    synchronize,
)
from launch.cli import CommandParser, at_least_one
from shards.progress import ProgressLine

_EXAMPLE = """\
example: nampouri's U-Net at 64 px
  colortrain benchmark checkpoint --shards photos-64 --set size=64 --set generator.levels=6
"""


@dataclass
class SaveCosts:
    """The measured costs of checkpoints; each field has one value per round."""

    # Seconds of one training step while no checkpoint is written.
    step: list[float] = field(default_factory=list)
    # Seconds for which a save blocks the training loop.
    blocked: list[float] = field(default_factory=list)
    # Seconds for which the background thread writes.
    writing: list[float] = field(default_factory=list)
    # Additional seconds, in total, of the steps taken during the writing.
    slowdown: list[float] = field(default_factory=list)
    # Seconds to resume a run and take `n_critic` steps.
    resume: list[float] = field(default_factory=list)
    # Size of the checkpoint on disk.
    megabytes: list[float] = field(default_factory=list)


class TimedTrainer:
    """A trainer that repeats a few batches in memory, to time only its steps."""

    def __init__(self, setup: TrainingSetup, name: str) -> None:
        self.trainer = setup.make_trainer(name)
        self.batches = cycle_batches(setup.load_batches())
        self.cycle = setup.recipe.n_critic

    def time_cycle(self) -> float:
        """Take `n_critic` training steps and return the seconds that they took."""
        start = time.perf_counter()
        for _ in range(self.cycle):
            self.trainer.take_step(next(self.batches))
        synchronize(self.trainer.accelerator.device)
        return time.perf_counter() - start

    def time_cycles(self, seconds: float) -> list[float]:
        """Take training steps until `seconds` have passed.

        Returns the seconds of each cycle of `n_critic` steps; at least one cycle is
        taken.
        """
        end = time.perf_counter() + seconds
        cycles = [self.time_cycle()]
        while time.perf_counter() < end:
            cycles.append(self.time_cycle())
        return cycles


def measure_save(timed: TimedTrainer, undisturbed: float, costs: SaveCosts) -> None:
    """Save one checkpoint while training continues, and append the costs to `costs`.

    undisturbed: seconds that `n_critic` steps take while no checkpoint is written.
    """
    writer = timed.trainer.checkpoint_writer
    start = time.perf_counter()
    timed.trainer.save()
    costs.blocked.append(time.perf_counter() - start)
    concurrent = [timed.time_cycle()]
    while writer.pending is not None and not writer.pending.done():
        concurrent.append(timed.time_cycle())
    assert writer.pending is not None
    written = writer.pending.result()
    writer.wait()
    costs.writing.append(written.seconds)
    costs.megabytes.append(written.bytes / 1e6)
    costs.slowdown.append(max(0.0, sum(concurrent) - undisturbed * len(concurrent)))


def measure_resume(setup: TrainingSetup, run: Path, name: str) -> float:
    """Return the seconds to resume a run and take `n_critic` training steps.

    run: the run folder, which is first copied to a folder `name` in the scratch folder.
    """
    shutil.copytree(run, setup.scratch / name)
    start = time.perf_counter()
    timed = TimedTrainer(setup, name)
    checkpoint = latest_checkpoint(timed.trainer.run)
    assert checkpoint is not None
    timed.trainer.load(checkpoint)
    timed.time_cycle()
    return time.perf_counter() - start


def measure(setup: TrainingSetup, seconds: float, rounds: int) -> SaveCosts:
    """Measure the costs of checkpoints once per round.

    seconds: how long, in each round, steps are timed while no checkpoint is written.
    """
    timed, costs = TimedTrainer(setup, "run"), SaveCosts()
    save_recipe(setup.recipe, recipe_file(timed.trainer.run))
    timed.time_cycles(seconds)
    with timed.trainer.checkpoint_writer, ProgressLine("saves", rounds, "rounds") as progress:
        for turn in range(rounds):
            cycles = sorted(timed.time_cycles(seconds))
            undisturbed = cycles[len(cycles) // 2]
            costs.step.append(undisturbed / timed.cycle)
            measure_save(timed, undisturbed, costs)
            costs.resume.append(measure_resume(setup, timed.trainer.run, f"resumed-{turn}"))
            progress.advance_to(turn + 1)
    return costs


def fill_report(report: Report, costs: SaveCosts, every: int) -> None:
    """Add the measured costs and a goal to the report.

    every: number of steps from one checkpoint to the next, for which the goal is
    computed.
    """
    rows = {
        "time per step": costs.step,
        "training blocked by a save": costs.blocked,
        "writing thread": costs.writing,
        "slowdown of concurrent steps": costs.slowdown,
        "resume, from the run folder to the end of the next step": costs.resume,
    }
    for name, seconds in rows.items():
        milliseconds = Measurements(tuple(seconds)).scaled(1000)
        report.add_row("A checkpoint", name, milliseconds, "ms")
    size = Measurements(tuple(costs.megabytes))
    report.add_row("A checkpoint on disk", "both networks with their Adam states", size, "MB")
    blocked = Measurements(
        tuple(100 * b / (every * t + b) for b, t in zip(costs.blocked, costs.step, strict=True))
    )
    lost = zip(costs.blocked, costs.slowdown, costs.step, strict=True)
    total = Measurements(tuple(100 * (b + s) / (every * t + b + s) for b, s, t in lost))
    what = f"training blocked, a save every {every} steps"
    report.add_goal(what, blocked, 2, at_most=True, unit="%")
    report.add_row(
        "Fraction of the time", f"blocked and slower steps, a save every {every} steps", total, "%"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print and save its report, and return the exit status."""
    args = make_parser().parse_args(argv)
    with scratch_folder(args.scratch) as scratch:
        setup = make_setup(args, scratch)
        setup = replace(setup, recipe=replace(setup.recipe, keep_checkpoints=1))
        report = Report("checkpoint", settings_of(args))
        fill_report(report, measure(setup, args.seconds, args.rounds), args.every)
    report.publish(args.json, args.plot)
    return 0


def make_parser() -> CommandParser:
    """Return the parser of this benchmark's options."""
    parser = make_training_parser("checkpoint", __doc__ or "", _EXAMPLE)
    parser.add_argument(
        "--every",
        type=at_least_one,
        default=200,
        metavar="STEPS",
        help="number of steps between two saves of a run (default: 200)",
    )
    return parser
