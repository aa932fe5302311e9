"""Measure how fast samples are read, by colortrain and by other libraries.

sections:
  reading  read from the page cache into one reused uint8 batch
  cold     the same, after the files were dropped from the page cache
  floats   load batches of float tensors for training
  seek     seek to any position of large synthetic shard sets: time and memory
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from launch.benchmark.loading import floats, reading, seek
from launch.benchmark.loading.other_libraries import COLUMN, Library, write_copies
from launch.benchmark.loading.shard_sets import (
    cached_fraction,
    drop_from_page_cache,
    first_shards,
    tar_paths,
    write_synthetic_set,
)
from launch.benchmark.report import Report, settings_of
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Measurements, Method, measure_in_turns
from launch.cli import CommandParser, at_least_one
from shards.errors import UserError, unknown
from shards.read.dataset import Split

_EXAMPLE = """\
The section `cold` is meaningful for files on a disk or a network file system. litdata and
mosaicml-streaming are measured where they are installed, on their own copies of the samples,
which are first written to --scratch.

example:
  colortrain benchmark loader --shards photos-256 --json loader.json
  colortrain benchmark loader --sections seek
"""
TRAINING_ORDER = "colortrain, training order"
FIRST_PASS = "colortrain, first pass (with checksums)"
MEMCPY, PAGE_CACHE = "memcpy", "page cache, readinto"
DECODE, DECODE_BATCHES = "webdataset .decode()", "webdataset .decode(), into batches"
_LARGE = 128  # from this size on, copying a sample's pixels takes longer than locating them
_MEMORY = {
    "own": "private",
    "mapped": "mapped files",
    "peak": "peak of both (manifest parsed)",
}
_NUM_SAMPLES = (1_000_000, 10_000_000, 100_000_000)


@dataclass
class BenchmarkContext:
    """The shard set and the settings with which all sections measure, and their report.

    copies: the same samples in the formats of other libraries, as name -> (library,
    folder).
    """

    report: Report
    split: Split
    batch_size: int
    seconds: float  # of one measurement
    rounds: int
    workers: Sequence[int]
    cpu_time: bool = False
    copies: dict[str, tuple[Library, Path]] = field(default_factory=dict)

    @property
    def sample_bytes(self) -> int:
        """The size of one stored sample in bytes."""
        return self.split.empty(1).nbytes

    def measure(self, section: str, methods: Sequence[Method]) -> dict[str, Measurements]:
        """Measure several methods in interleaved rounds; add their rows to the report.

        Returns each method's samples per second by name, with one value per round.
        """
        rates = measure_in_turns(section, methods, self.seconds, self.rounds)
        for name, measurements in rates.items():
            self.report.add_row(section, name, measurements, "samples/s", self.sample_bytes)
        return rates


def readers(context: BenchmarkContext, split: Split) -> list[Method]:
    """Return the methods that read stored samples into uint8 batches in one process."""
    batch, tars = context.batch_size, tar_paths(split)
    methods = [
        Method(TRAINING_ORDER, partial(reading.colortrain_order, split, batch)),
        Method(PAGE_CACHE, partial(reading.page_cache, split, batch)),
        Method(DECODE, partial(reading.webdataset_samples, tars)),
        Method(DECODE_BATCHES, partial(reading.webdataset_batches, tars, split.empty(batch))),
    ]
    for name, (library, folder) in context.copies.items():
        dataset = library.open(folder, batch)
        start = partial(reading.copy_into_rows, dataset, COLUMN, split.empty(batch))
        methods.append(Method(name, start))
    return methods


def warm_up(context: BenchmarkContext) -> None:
    """Read the whole shard set once, to verify checksums and to fill the page cache."""
    batches = -(-len(context.split) // context.batch_size)
    for _ in zip(
        range(batches), reading.colortrain_order(context.split, context.batch_size), strict=False
    ):
        pass


def section_reading(context: BenchmarkContext) -> None:
    """Measure how fast samples are read from the page cache into one uint8 batch."""
    warm_up(context)
    split, size = context.split, context.split.manifest.size
    source = reading.large_array(split, context.batch_size)
    copy = Method(MEMCPY, partial(reading.memcpy, source, context.batch_size))
    # It verifies the checksum of each sample; later passes do not.
    first_pass = Method(
        FIRST_PASS,
        partial(reading.colortrain_first_pass, split, context.batch_size),
        settle=False,
        max_samples=len(split),
    )
    clock = time.process_time if context.cpu_time else time.perf_counter
    methods = [
        replace(method, clock=clock) for method in (copy, *readers(context, split), first_pass)
    ]
    kind = "CPU time, warm" if context.cpu_time else "warm"
    section = f"Reading {size} px into uint8 batches of {context.batch_size}, one process, {kind}"
    rates = context.measure(section, methods)
    ours = rates[TRAINING_ORDER]
    context.report.add_row(
        section, "later passes over the first", ours.over(rates[FIRST_PASS]), "x"
    )
    goal = 10.0 if size >= _LARGE else 20.0
    context.report.add_goal(f"reading {size} px over {DECODE}", ours.over(rates[DECODE]), goal)
    if size >= _LARGE:
        context.report.add_goal(f"reading {size} px over memcpy", ours.over(rates[MEMCPY]), 0.7)


def section_cold(context: BenchmarkContext) -> None:
    """Measure how fast samples are read from files that are not in the page cache."""
    copies = [
        path
        for _, folder in context.copies.values()
        for path in folder.rglob("*")
        if path.is_file()
    ]
    files = [*tar_paths(context.split), *copies]
    drop_from_page_cache(files)
    cached = cached_fraction(files)
    if cached > 0.05:
        context.report.notes.append(
            f"{cached:.0%} of the files stayed in the page cache: the section `cold` is not cold"
        )
    first_pass = partial(reading.colortrain_first_pass, context.split, context.batch_size)
    methods = [
        Method(FIRST_PASS, first_pass),
        *(each for each in readers(context, context.split) if each.name != TRAINING_ORDER),
    ]
    drop, num_samples = partial(drop_from_page_cache, files), len(context.split)
    # At most one pass: a second would read from the page cache.
    cold = [
        Method(each.name, each.start, settle=False, before=drop, max_samples=num_samples)
        for each in methods
    ]
    context.measure(
        f"Reading {context.split.manifest.size} px into uint8 batches, one process, cold", cold
    )


def section_floats(context: BenchmarkContext) -> None:
    """Measure how fast loaders yield batches of float tensors, by number of workers."""
    warm_up(context)
    worker_counts = reading.useful_worker_counts(context.workers)
    methods = floats.make_methods(
        context.split, tar_paths(context.split), context.copies, context.batch_size, worker_counts
    )
    size = context.split.manifest.size
    section = f"Float tensors of {size} px, batches of {context.batch_size}, warm"
    rates = context.measure(section, methods)
    ours, theirs = (fastest(rates, name) for name in (floats.COLORTRAIN, floats.WEBDATASET))
    what = f"floats of {size} px, {ours}, over {theirs}"
    context.report.add_goal(what, rates[ours].over(rates[theirs]), 5.0)


def fastest(rates: dict[str, Measurements], prefix: str) -> str:
    """Return the name of the fastest of the methods whose names start with `prefix`."""
    rows = (row for row in rates if row.startswith(prefix))
    return max(rows, key=lambda row: rates[row].median)


def section_seek(report: Report, scratch: Path) -> None:
    """Measure seeks in the training order, and the memory of a reading process.

    scratch: folder to which the synthetic shard sets are written.
    """
    times = seek.run_in_new_process(seek.measure_seeks, _NUM_SAMPLES[-1])
    shards = _NUM_SAMPLES[-1] // seek.SHARD_SAMPLES
    section = f"Seeking among {_NUM_SAMPLES[-1]:,} samples in {shards:,} shards"
    for name in ("new_epoch", "same_epoch", "same_position"):
        report.add_row(section, name.replace("_", " "), Measurements(getattr(times, name)), "ms")
    growth = Measurements((times.growth_mb,))
    report.add_row(section, "memory growth, at most", growth, "MB")
    new_epoch = Measurements(times.new_epoch)
    report.add_goal("seeking to any position", new_epoch, 50, at_most=True, unit="ms")
    report.add_goal("memory of seeking", growth, 100, at_most=True, unit="MB")
    own = [_add_memory(report, scratch / f"samples-{count}", count) for count in _NUM_SAMPLES]
    per_sample = (own[-1] - own[0]) * 1e6 / (_NUM_SAMPLES[-1] - _NUM_SAMPLES[0])
    what = (
        "private memory of a reading process per additional sample, "
        f"{_NUM_SAMPLES[0]:,} to {_NUM_SAMPLES[-1]:,}"
    )
    report.add_goal(what, Measurements((per_sample,)), 1.0, at_most=True, unit="bytes")


def _add_memory(report: Report, folder: Path, num_samples: int) -> float:
    """Report the memory of a process that reads a synthetic set; return private MB."""
    samples = seek.positions(num_samples, 100)
    write_synthetic_set(folder, num_samples, samples)
    memory = seek.run_in_new_process(seek.measure_reading_memory, folder, samples)
    section = "Memory of a process that reads 3,200 samples from all parts of a set"
    for name in ("own", "mapped", "peak"):
        megabytes = Measurements((getattr(memory, f"{name}_mb"),))
        report.add_row(section, f"{num_samples:,} samples, {_MEMORY[name]}", megabytes, "MB")
    return memory.own_mb


SECTIONS: dict[str, Callable[[BenchmarkContext], None]] = {
    "cold": section_cold,
    "reading": section_reading,
    "floats": section_floats,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the requested sections, save the report, and return the exit status."""
    args = make_parser().parse_args(argv)
    check_args(args)
    report = Report("loader", settings_of(args))
    if args.torch_threads:
        torch.set_num_threads(args.torch_threads)
    with scratch_folder(args.scratch) as scratch:
        if set(args.sections) & set(SECTIONS):
            context = make_context(args, report, scratch)
            for name in SECTIONS:
                if name in args.sections:
                    SECTIONS[name](context)
        if "seek" in args.sections:
            section_seek(report, scratch)
    report.publish(args.json)
    return 0


def make_context(args: argparse.Namespace, report: Report, scratch: Path) -> BenchmarkContext:
    """Open the shards, and copy their samples to the formats of other libraries.

    scratch: folder to which the copies are written.
    """
    whole_split = Split(args.shards)
    split = first_shards(whole_split, scratch / "first", args.gigabytes * 1e9)
    report.notes.append(
        f"{len(split):,} of {len(whole_split):,} samples, dataset {split.manifest.dataset_id}"
    )
    copies, notes = write_copies(split, scratch)
    report.notes += notes
    return BenchmarkContext(
        report,
        split,
        batch_size=args.batch_size,
        seconds=args.seconds / args.rounds,
        rounds=args.rounds,
        workers=args.workers,
        cpu_time=args.cpu_time,
        copies=copies,
    )


def check_args(args: argparse.Namespace) -> None:
    """Raise UserError for an unknown section or an invalid option."""
    for name in args.sections:
        if name not in (*SECTIONS, "seek"):
            raise unknown("section", name, (*SECTIONS, "seek"))
    if args.seconds <= 0:
        raise UserError(f"--seconds {args.seconds}: must be above 0")
    if min(args.workers) < 0:
        raise UserError(f"--workers {min(args.workers)}: must be at least 0")
    if args.shards is None and set(args.sections) & set(SECTIONS):
        raise UserError(
            "--shards is missing: give a folder that `colortrain shards build` wrote, "
            "or --sections seek"
        )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = CommandParser("launch.benchmark loader", __doc__ or "", _EXAMPLE)
    add = parser.add_argument
    add("--shards", type=Path, metavar="DIR", help="folder that `colortrain shards build` wrote")
    add(
        "--batch-size",
        type=at_least_one,
        default=32,
        metavar="N",
        help="samples per batch (default: 32)",
    )
    add(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds per row, over all rounds (default: 5)",
    )
    add("--rounds", type=at_least_one, default=5, metavar="N", help="number of rounds (default: 5)")
    add(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4],
        metavar="N",
        help="numbers of workers to measure (default: 0 1 2 4)",
    )
    add(
        "--gigabytes",
        type=float,
        default=1.0,
        metavar="G",
        help="measure on the first G GB of the set (default: 1)",
    )
    add(
        "--sections",
        nargs="+",
        default=[*SECTIONS, "seek"],
        metavar="NAME",
        help=f"sections to measure, out of {', '.join(SECTIONS)}, seek (default: all)",
    )
    add(
        "--torch-threads",
        type=at_least_one,
        metavar="N",
        help="number of torch threads in `floats` (default: torch's own; use 1 on a busy machine)",
    )
    add(
        "--cpu-time",
        action="store_true",
        help="measure CPU time instead of wall time in `reading`, on a busy machine",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="folder for copies in other formats and for synthetic sets (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="write the report as JSON to this file")
    return parser
