"""What more processes bring: each with a whole batch (weak scaling), or all with a share of one batch (strong).

Processes are launched anew for every round, one then several, so that what else the machine does falls on all alike.
Each count of processes also steps without averaging gradients: what is lost there is the machine's, not ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence

import torch

from colortrain.data.loader import check_divides
from colortrain.recipe import save_recipe
from launch.benchmark.report import Report
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Figures
from launch.benchmark.training.scaling_worker import DOOR, SILENT, STRONG, WEAK
from launch.benchmark.training.setup import Course, course, settings, words
from launch.cli import CommandParser, at_least_one
from launch.processes import check_processes, launch_command
from shards.errors import UserError
from shards.files import write_atomic
from shards.progress import ProgressLine

_EXAMPLE = """\
example: one and two processes with one thread each
  python -m launch.benchmark scaling --shards photos-64 --set size=64 --set generator.levels=6 --ranks 1 2
"""
Rates = dict[tuple[int, str], list[float]]  # by count of processes and way: a figure a round


def launched(
    on: Course, ranks: int, ways: Sequence[str], asked: argparse.Namespace
) -> dict[str, list[float]]:
    """What so many processes, started now, reach; raises `UserError` with what they said if they fail."""
    recipe, request, out = (
        on.scratch / name for name in ("recipe.json", "request.json", "rates.json")
    )
    save_recipe(on.recipe, recipe)
    said = {
        "recipe": str(recipe),
        "shards": on.shards,
        "scratch": str(on.scratch),
        "threads": asked.threads or 1,
        "ways": list(ways),
        "seconds": asked.seconds,
        "rounds": 1,
        "out": str(out),
    }
    write_atomic(request, json.dumps(said).encode())
    command = [*launch_command(ranks), "-m", DOOR, str(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"--ranks {ranks}: {reason(done.stderr)}")
    found: dict[str, list[float]] = json.loads(out.read_text())
    out.unlink()
    return found


def reason(said: str) -> str:
    """The line in which a process told of a user's mistake, without what the launcher adds; else the end of it all."""
    told = [
        line.removeprefix(f"{DOOR}: error: ")
        for line in said.splitlines()
        if line.startswith(f"{DOOR}: error: ")
    ]
    return told[0] if told else said[-2000:]


def ways_of(ranks: int) -> list[str]:
    """What one process does is the same in every way."""
    return [WEAK] if ranks == 1 else [WEAK, SILENT, STRONG]


def measure(on: Course, asked: argparse.Namespace) -> Rates:
    """Every count of processes once a round."""
    found: Rates = {}
    with ProgressLine("scaling", asked.rounds * len(asked.ranks), "launches") as progress:
        for turn in range(asked.rounds):
            for place, ranks in enumerate(asked.ranks, 1):
                for way, rates in launched(on, ranks, ways_of(ranks), asked).items():
                    found.setdefault((ranks, way), []).extend(rates)
                progress.advance_to(turn * len(asked.ranks) + place)
    return found


def tell(report: Report, rates: Rates, threads: int) -> None:
    """Rows of rates, and of each count of processes beside one."""
    figures = {key: Figures(tuple(each)) for key, each in rates.items()}
    alone = figures[1, WEAK]
    for (ranks, way), found in figures.items():
        name = f"{ranks} processes, {way}" if ranks > 1 else "1 process"
        report.add(f"Steps on {threads} thread(s) a process", name, found, "images/s")
    for (ranks, way), found in figures.items():
        if ranks > 1:
            share = found.over(alone).times(100 / ranks)
            report.add("Beside as many times one process", f"{ranks} processes, {way}", share, "%")
            if way == WEAK:
                report.judge(f"{ranks} processes, weak", share, 92, unit="%")
                lost = figures[ranks, SILENT].over(found)
                averaging = Figures(tuple(100 * (1 - 1 / each) for each in lost.rounds))
                report.add(
                    "Share of the time",
                    f"{ranks} processes, averaging gradients (not hidden)",
                    averaging,
                    "%",
                )


def counts(batch_size: int) -> list[int]:
    """How many processes there can be here that share a batch equally."""
    most = torch.cuda.device_count() or 2
    return [ranks for ranks in range(1, most + 1) if batch_size % ranks == 0]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the words ask for."""
    asked = parser().parse_args(argv)
    with scratch_folder(asked.scratch) as scratch:
        on = course(asked, scratch)
        asked.ranks = sorted({1, *(asked.ranks or counts(on.recipe.batch_size))})
        for ranks in asked.ranks:
            check_divides(on.recipe.batch_size, ranks)
            check_processes(ranks, "--ranks")
        report = Report("scaling", settings(asked))
        tell(report, measure(on, asked), asked.threads or 1)
    report.publish(asked.json, asked.plot)
    return 0


def parser() -> CommandParser:
    """The words this benchmark understands."""
    found = words("scaling", __doc__ or "", _EXAMPLE)
    found.add_argument(
        "--ranks",
        type=at_least_one,
        nargs="+",
        metavar="N",
        help="how many processes (default: up to the GPUs, or 2, where they divide the batch)",
    )
    return found
