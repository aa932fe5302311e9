"""Measure how much faster several processes train than one (weak and strong scaling).

In weak scaling each process takes steps on a whole batch; in strong scaling one batch
is divided among the processes. Weak scaling is also measured without averaging
gradients.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence

from colortrain.data.loader import check_divides
from colortrain.distributed.device import num_gpus
from colortrain.recipe import save_recipe
from launch.benchmark.report import Report, settings_of
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Measurements
from launch.benchmark.training.scaling_worker import MODULE, STRONG, UNSYNCED, WEAK
from launch.benchmark.training.setup import TrainingSetup, make_setup, make_training_parser
from launch.cli import CommandParser, at_least_one
from launch.processes import check_processes, launch_command
from shards.errors import UserError, command_name
from shards.files import write_atomic
from shards.progress import ProgressLine

_EXAMPLE = """\
example: one and two processes with one thread each
  colortrain benchmark scaling --shards photos-64 --set size=64 --set generator.levels=6 \\
    --ranks 1 2
"""
Rates = dict[tuple[int, str], list[float]]  # (processes, mode) -> images/s of each round


def launch_processes(
    setup: TrainingSetup, ranks: int, modes: Sequence[str], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Start `ranks` training processes and return their total images per second.

    Returns scaling mode -> one value per round. Raises UserError with the error message
    of the processes if they fail.
    """
    recipe, request, out = (
        setup.scratch / name for name in ("recipe.json", "request.json", "rates.json")
    )
    save_recipe(setup.recipe, recipe)
    values = {
        "recipe": str(recipe),
        "shards": setup.shards,
        "scratch": str(setup.scratch),
        "threads": args.threads or 1,
        "modes": list(modes),
        "seconds": args.seconds,
        "rounds": 1,
        "out": str(out),
    }
    write_atomic(request, json.dumps(values).encode())
    command = [*launch_command(ranks), "-m", MODULE, str(request)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UserError(f"--ranks {ranks}: {error_message(done.stderr)}")
    rates: dict[str, list[float]] = json.loads(out.read_bytes())
    out.unlink()
    return rates


def error_message(stderr: str) -> str:
    """Return the first user error in `stderr`, or its end if it contains none."""
    prefix = f"{command_name(MODULE)}: error: "
    errors = [line.removeprefix(prefix) for line in stderr.splitlines() if line.startswith(prefix)]
    return errors[0] if errors else stderr[-2000:]


def modes_of(ranks: int) -> list[str]:
    """Return the scaling modes in which `ranks` processes are measured."""
    # All modes are the same for one process. If speed is lost even with UNSYNCED, the
    # cause is the machine, not colortrain.
    return [WEAK] if ranks == 1 else [WEAK, UNSYNCED, STRONG]


def measure(setup: TrainingSetup, args: argparse.Namespace) -> Rates:
    """Measure the training speed with each number of processes, once per round.

    Returns (number of processes, scaling mode) -> images per second of all processes
    together, one value per round.
    """
    all_rates: Rates = {}
    with ProgressLine("scaling", args.rounds * len(args.ranks), "launches") as progress:
        for turn in range(args.rounds):
            for position, ranks in enumerate(args.ranks, 1):
                # In every round, so that other load affects all numbers equally.
                rates = launch_processes(setup, ranks, modes_of(ranks), args)
                for mode, values in rates.items():
                    all_rates.setdefault((ranks, mode), []).extend(values)
                progress.advance_to(turn * len(args.ranks) + position)
    return all_rates


def fill_report(report: Report, rates: Rates, threads: int) -> None:
    """Add to the report the measured rates, the efficiencies, and the goals.

    The efficiency of N processes is their total rate divided by N times the rate of one
    process. threads: number of torch threads per process.
    """
    measured = {key: Measurements(tuple(values)) for key, values in rates.items()}
    for (ranks, mode), measurements in measured.items():
        name = f"{ranks} processes, {mode}" if ranks > 1 else "1 process"
        section = f"Steps on {threads} thread(s) per process"
        report.add_row(section, name, measurements, "images/s")
    single = measured[1, WEAK]
    for (ranks, mode), measurements in measured.items():
        if ranks == 1:
            continue
        efficiency = measurements.over(single).scaled(100 / ranks)
        report.add_row(
            "Efficiency compared with one process", f"{ranks} processes, {mode}", efficiency, "%"
        )
        if mode == WEAK:
            report.add_goal(f"{ranks} processes, weak scaling", efficiency, 92, unit="%")
            _add_averaging(report, ranks, measured[ranks, UNSYNCED].over(measurements))


def _add_averaging(report: Report, ranks: int, speedup: Measurements) -> None:
    """Add a row: the percentage of the time in which only gradients are averaged.

    speedup: the rate without averaging, divided by the rate with averaging.
    """
    averaging = Measurements(tuple(100 * (1 - 1 / value) for value in speedup.rounds))
    name = f"{ranks} processes, gradient averaging (not overlapped)"
    report.add_row("Fraction of the time", name, averaging, "%")


def default_ranks(batch_size: int) -> list[int]:
    """Return the numbers of processes to measure if --ranks is not given."""
    # On a machine without GPUs, at most two processes are used.
    limit = num_gpus() or 2
    return [ranks for ranks in range(1, limit + 1) if batch_size % ranks == 0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print and save its report, and return the exit status."""
    args = make_parser().parse_args(argv)
    with scratch_folder(args.scratch) as scratch:
        setup = make_setup(args, scratch)
        args.ranks = sorted({1, *(args.ranks or default_ranks(setup.recipe.batch_size))})
        for ranks in args.ranks:
            check_divides(setup.recipe.batch_size, ranks)
            check_processes(ranks, "--ranks")
        report = Report("scaling", settings_of(args))
        fill_report(report, measure(setup, args), args.threads or 1)
    report.publish(args.json, args.plot)
    return 0


def make_parser() -> CommandParser:
    """Return the parser of this benchmark's options."""
    parser = make_training_parser("scaling", __doc__ or "", _EXAMPLE)
    parser.add_argument(
        "--ranks",
        type=at_least_one,
        nargs="+",
        metavar="N",
        help="numbers of processes to measure (default: those that divide the batch size, up to "
        "the number of GPUs, or up to 2 without a GPU)",
    )
    return parser
