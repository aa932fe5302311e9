"""What saving costs a training, and how soon a run that was killed steps again.

Steps are timed without a checkpoint being written, then while one is: a save costs the time the loop stands still, and
what the writing thread takes from the steps beside it.
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
from launch.benchmark.report import Report
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Figures
from launch.benchmark.training.setup import Course, course, endless, settings, wait_for, words
from launch.cli import CommandParser, at_least_one
from shards.progress import ProgressLine

_EXAMPLE = """\
example: nampouri's U-Net at 64 px
  python -m launch.benchmark checkpoint --shards photos-64 --set size=64 --set generator.levels=6
"""


@dataclass
class Saves:
    """Seconds, one of each a round; `taken`: by which the steps beside the writing were longer than others."""

    step: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    resume: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


class Timed:
    """A trainer whose steps are timed, on batches that lie ready."""

    def __init__(self, on: Course, name: str) -> None:
        self.trainer = on.trainer(name)
        self.batches = endless(on.batches())
        self.cycle = on.recipe.n_critic

    def turn(self) -> float:
        """Seconds of one turn of both networks."""
        began = time.perf_counter()
        for _ in range(self.cycle):
            self.trainer.take_step(next(self.batches))
        wait_for(self.trainer.accelerator.device)
        return time.perf_counter() - began

    def turns(self, seconds: float) -> list[float]:
        """Turns until the time is over."""
        until = time.perf_counter() + seconds
        found = [self.turn()]
        while time.perf_counter() < until:
            found.append(self.turn())
        return found


def save_beside_steps(timed: Timed, quiet: float, saves: Saves) -> None:
    """One checkpoint as a run writes it, and the turns that go on meanwhile."""
    saver = timed.trainer.checkpoint_writer
    began = time.perf_counter()
    timed.trainer.save()
    saves.stall.append(time.perf_counter() - began)
    beside = [timed.turn()]
    while saver.pending is not None and not saver.pending.done():
        beside.append(timed.turn())
    assert saver.pending is not None
    written = saver.pending.result()
    saver.wait()
    saves.writing.append(written.seconds)
    saves.megabytes.append(written.bytes / 1e6)
    saves.taken.append(max(0.0, sum(beside) - quiet * len(beside)))


def resumed(on: Course, run: Path, name: str) -> float:
    """Seconds from nothing but the run folder to the end of the first step after it."""
    shutil.copytree(run, on.scratch / name)
    began = time.perf_counter()
    timed = Timed(on, name)
    found = latest_checkpoint(timed.trainer.run)
    assert found is not None
    timed.trainer.load(found)
    timed.turn()
    return time.perf_counter() - began


def measure(on: Course, seconds: float, rounds: int) -> Saves:
    """Steps alone, a save beside steps, going on: in turns."""
    timed, saves = Timed(on, "run"), Saves()
    save_recipe(on.recipe, recipe_file(timed.trainer.run))
    timed.turns(seconds)
    with timed.trainer.checkpoint_writer, ProgressLine("saves", rounds, "rounds") as progress:
        for turn in range(rounds):
            alone = sorted(timed.turns(seconds))
            quiet = alone[len(alone) // 2]
            saves.step.append(quiet / timed.cycle)
            save_beside_steps(timed, quiet, saves)
            saves.resume.append(resumed(on, timed.trainer.run, f"resumed-{turn}"))
            progress.advance_to(turn + 1)
    return saves


def tell(report: Report, saves: Saves, every: int) -> None:
    """Rows, and the share of a run that saves every so many steps."""
    rows = {
        "a step": saves.step,
        "standing still for a save": saves.stall,
        "the writing thread": saves.writing,
        "what it takes from steps beside it": saves.taken,
        "from the run folder to the end of the next step": saves.resume,
    }
    for name, figures in rows.items():
        report.add("A checkpoint", name, Figures(tuple(1000 * each for each in figures)), "ms")
    report.add(
        "A checkpoint on disk",
        "both networks and their Adam",
        Figures(tuple(saves.megabytes)),
        "MB",
    )
    still = Figures(
        tuple(100 * s / (every * t + s) for s, t in zip(saves.stall, saves.step, strict=True))
    )
    lost = zip(saves.stall, saves.taken, saves.step, strict=True)
    whole = Figures(tuple(100 * (s + b) / (every * t + s + b) for s, b, t in lost))
    report.judge(f"standing still, a save every {every} steps", still, 2, at_most=True, unit="%")
    report.add(
        "Share of the time",
        f"standing still and slower steps, a save every {every} steps",
        whole,
        "%",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the words ask for."""
    asked = parser().parse_args(argv)
    with scratch_folder(asked.scratch) as scratch:
        on = course(asked, scratch)
        on = replace(on, recipe=replace(on.recipe, keep_checkpoints=1))
        report = Report("checkpoint", settings(asked))
        tell(report, measure(on, asked.seconds, asked.rounds), asked.every)
    report.publish(asked.json, asked.plot)
    return 0


def parser() -> CommandParser:
    """The words this benchmark understands."""
    found = words("checkpoint", __doc__ or "", _EXAMPLE)
    found.add_argument(
        "--every",
        type=at_least_one,
        default=200,
        metavar="STEPS",
        help="how often a run would save (default: 200)",
    )
    return found
