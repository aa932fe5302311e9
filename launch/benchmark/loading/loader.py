"""How fast samples are read and batches made, beside what the machine allows and beside other libraries.

Sections: `reading` (warm, into one reused uint8 batch), `cold` (the same, files dropped from the page cache), `floats`
(through the training loader to float tensors), `seek` (to any position, and memory, on synthetic sets).
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
from launch.benchmark.loading.other_libraries import NAME, Other, write_others
from launch.benchmark.loading.shard_sets import (
    cached_share,
    drop_cached,
    first_shards,
    synthetic_set,
    tars_of,
)
from launch.benchmark.report import Report
from launch.benchmark.scratch_folder import scratch_folder
from launch.benchmark.timing import Contestant, Figures, in_turns
from launch.cli import CommandParser, at_least_one
from shards.errors import UserError, unknown
from shards.read.dataset import Split

_EXAMPLE = """\
Cold figures mean something where the files lie on a disk or a network file system. litdata and mosaicml-streaming are
measured too where they are installed; they write their own copy of the samples into --scratch first.

example:
  python -m launch.benchmark loader --shards photos-256 --json loader.json
  python -m launch.benchmark loader --sections seek
"""
OURS, FIRST_PASS = "colortrain, training order", "colortrain, first pass (with checksums)"
MEMCPY, PAGE_CACHE = "memcpy", "page cache, readinto"
DECODE, DECODE_BATCHES = "webdataset .decode()", "webdataset .decode(), into batches"
_BIG_PICTURES = 128  # from this size on a sample's pixels cost more than finding them
_MEMORY = {"own": "its own", "mapped": "pages of files", "peak": "both, at most (manifest parsed)"}
_SCALES = (1_000_000, 10_000_000, 100_000_000)


@dataclass
class Bench:
    """What the sections share: the set, how long to measure, what the other libraries made of it."""

    report: Report
    scratch: Path
    split: Split
    batch_size: int
    seconds: float  # of one measurement
    rounds: int
    workers: Sequence[int]
    cpu_time: bool = False
    others: dict[str, tuple[Other, Path]] = field(default_factory=dict)

    @property
    def sample_bytes(self) -> int:
        return self.split.empty(1).nbytes

    def turns(self, section: str, contestants: Sequence[Contestant]) -> dict[str, Figures]:
        """Measure in turns and put everyone into the report."""
        found = in_turns(section, contestants, self.seconds, self.rounds)
        for name, figures in found.items():
            self.report.add(section, name, figures, "samples/s", self.sample_bytes)
        return found


def readers(bench: Bench, split: Split) -> list[Contestant]:
    """Everyone who reads tars or a copy of them into uint8 batches, one process each."""
    batch, tars = bench.batch_size, tars_of(split)
    found = [
        Contestant(OURS, partial(reading.ours, split, batch)),
        Contestant(PAGE_CACHE, partial(reading.page_cache, split, batch)),
        Contestant(DECODE, partial(reading.webdataset_samples, tars)),
        Contestant(DECODE_BATCHES, partial(reading.webdataset_batches, tars, split.empty(batch))),
    ]
    for name, (other, folder) in bench.others.items():
        dataset = other.open(folder, batch)
        found.append(
            Contestant(name, partial(reading.into_rows, dataset, NAME, split.empty(batch)))
        )
    return found


def warm_up(bench: Bench) -> None:
    """One pass: each sample has been checked then, and lies in the page cache if that holds them all."""
    batches = -(-len(bench.split) // bench.batch_size)
    for _ in zip(range(batches), reading.ours(bench.split, bench.batch_size), strict=False):
        pass


def section_reading(bench: Bench) -> None:
    """Warm, into one reused contiguous uint8 array; ours also with the check that each sample's first reading makes."""
    warm_up(bench)
    split, size = bench.split, bench.split.manifest.size
    big = reading.big_array(split, bench.batch_size)
    copy = Contestant(MEMCPY, partial(reading.memcpy, big, bench.batch_size))
    anew = partial(reading.opened_anew, split, bench.batch_size)
    first = Contestant(FIRST_PASS, anew, settle=False, most=len(split))
    clock = time.process_time if bench.cpu_time else time.perf_counter
    everyone = [replace(each, clock=clock) for each in (copy, *readers(bench, split), first)]
    kind = "CPU time, warm" if bench.cpu_time else "warm"
    section = f"Reading {size} px into uint8 batches of {bench.batch_size}, one process, {kind}"
    found = bench.turns(section, everyone)
    ours = found[OURS]
    bench.report.add(section, "later passes over the first", ours.over(found[FIRST_PASS]), "x")
    many = 10.0 if size >= _BIG_PICTURES else 20.0
    bench.report.judge(f"reading {size} px over {DECODE}", ours.over(found[DECODE]), many)
    if size >= _BIG_PICTURES:
        bench.report.judge(f"reading {size} px over memcpy", ours.over(found[MEMCPY]), 0.7)


def section_cold(bench: Bench) -> None:
    """The same from files that the kernel was told to forget, one pass at most; each opens its files anew."""
    copies = [
        path for _, folder in bench.others.values() for path in folder.rglob("*") if path.is_file()
    ]
    files = [*tars_of(bench.split), *copies]
    drop_cached(files)
    left = cached_share(files)
    if left > 0.05:
        bench.report.notes.append(
            f"{left:.0%} of the files stayed in the page cache: cold figures are not cold"
        )
    ours = Contestant(FIRST_PASS, partial(reading.opened_anew, bench.split, bench.batch_size))
    everyone = [ours, *(each for each in readers(bench, bench.split) if each.name != OURS)]
    forget, once = partial(drop_cached, files), len(bench.split)
    cold = [
        Contestant(each.name, each.start, settle=False, before=forget, most=once)
        for each in everyone
    ]
    bench.turns(
        f"Reading {bench.split.manifest.size} px into uint8 batches, one process, cold", cold
    )


def section_floats(bench: Bench) -> None:
    """Through the training loader to float tensors, everyone with each count of workers."""
    warm_up(bench)
    counts = reading.workers_worth_trying(bench.workers)
    everyone = floats.contestants(
        bench.split, tars_of(bench.split), bench.others, bench.batch_size, counts
    )
    size = bench.split.manifest.size
    found = bench.turns(
        f"Float tensors of {size} px, batches of {bench.batch_size}, warm", everyone
    )
    ours, theirs = (best(found, name) for name in (floats.OURS, floats.WEBDATASET))
    what = f"floats of {size} px, {ours}, over {theirs}"
    bench.report.judge(what, found[ours].over(found[theirs]), 5.0)


def best(found: dict[str, Figures], name: str) -> str:
    """The fastest row of those that begin with `name`."""
    return max((row for row in found if row.startswith(name)), key=lambda row: found[row].median)


def section_seek(report: Report, scratch: Path) -> None:
    """Any position of 100 million samples, and the memory of a process that reads from sets of three sizes."""
    found = seek.alone(seek.seeks, _SCALES[-1])
    section = (
        f"Seeking among {_SCALES[-1]:,} samples in {_SCALES[-1] // seek.SHARD_SAMPLES:,} shards"
    )
    for name in ("anywhere", "same_epoch", "repeated"):
        report.add(section, name.replace("_", " "), Figures(getattr(found, name)), "ms")
    grown = Figures((found.grown_mb,))
    report.add(section, "memory grown by, at most", grown, "MB")
    report.judge("seeking anywhere", Figures(found.anywhere), 50, at_most=True, unit="ms")
    report.judge("memory of seeking", grown, 100, at_most=True, unit="MB")
    own = [_memory(report, scratch / f"samples-{samples}", samples) for samples in _SCALES]
    more = (own[-1] - own[0]) * 2**20 / (_SCALES[-1] - _SCALES[0])
    what = (
        f"own memory of a reading process for each sample more, {_SCALES[0]:,} to {_SCALES[-1]:,}"
    )
    report.judge(what, Figures((more,)), 1.0, at_most=True, unit="bytes")


def _memory(report: Report, folder: Path, num_samples: int) -> float:
    """Rows of what a process that reads from a set of so many samples takes; its own memory in MB."""
    wanted = seek.positions(num_samples, 100)
    synthetic_set(folder, num_samples, wanted)
    found = seek.alone(seek.read_all_over, folder, wanted)
    section = "Memory of a process that reads 3,200 samples from all over a set"
    for name in ("own", "mapped", "peak"):
        figures = Figures((getattr(found, f"{name}_mb"),))
        report.add(section, f"{num_samples:,} samples, {_MEMORY[name]}", figures, "MB")
    return found.own_mb


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "cold": section_cold,
    "reading": section_reading,
    "floats": section_floats,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the sections that were asked for."""
    asked = parser().parse_args(argv)
    check(asked)
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(asked).items()
    }
    report = Report("loader", settings)
    if asked.torch_threads:
        torch.set_num_threads(asked.torch_threads)
    with scratch_folder(asked.scratch) as scratch:
        if set(asked.sections) & set(SECTIONS):
            bench = prepared(asked, report, scratch)
            for name in SECTIONS:
                if name in asked.sections:
                    SECTIONS[name](bench)
        if "seek" in asked.sections:
            section_seek(report, scratch)
    report.publish(asked.json)
    return 0


def prepared(asked: argparse.Namespace, report: Report, scratch: Path) -> Bench:
    """The set to measure on, and the other libraries' copies of it."""
    whole = Split(asked.shards)
    split = first_shards(whole, scratch / "first", asked.gigabytes * 1e9)
    report.notes.append(
        f"{len(split):,} of {len(whole):,} samples, dataset {split.manifest.dataset_id}"
    )
    seconds = asked.seconds / asked.rounds
    bench = Bench(
        report,
        scratch,
        split,
        asked.batch_size,
        seconds,
        asked.rounds,
        asked.workers,
        asked.cpu_time,
    )
    bench.others, notes = write_others(split, scratch)
    report.notes += notes
    return bench


def check(asked: argparse.Namespace) -> None:
    """Raise `UserError` for words that do not go together."""
    for name in asked.sections:
        if name not in (*SECTIONS, "seek"):
            raise unknown("section", name, (*SECTIONS, "seek"))
    if asked.seconds <= 0:
        raise UserError(f"--seconds {asked.seconds}: give more than 0")
    if min(asked.workers) < 0:
        raise UserError(f"--workers {min(asked.workers)}: give 0 or more")
    if asked.shards is None and set(asked.sections) & set(SECTIONS):
        raise UserError(
            "--shards is missing: give a folder that `python -m shards build` wrote, or --sections seek"
        )


def parser() -> argparse.ArgumentParser:
    """The words this benchmark understands."""
    words = CommandParser("launch.benchmark loader", __doc__ or "", _EXAMPLE)
    add = words.add_argument
    add("--shards", type=Path, metavar="DIR", help="folder that `python -m shards build` wrote")
    add(
        "--batch-size",
        type=at_least_one,
        default=32,
        metavar="N",
        help="samples a batch (default: 32)",
    )
    add(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="how long each row is measured in all (default: 5)",
    )
    add(
        "--rounds", type=at_least_one, default=5, metavar="N", help="in how many turns (default: 5)"
    )
    add(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4],
        metavar="N",
        help="counts to try (default: 0 1 2 4)",
    )
    add(
        "--gigabytes",
        type=float,
        default=1.0,
        metavar="G",
        help="measure on the first shards of G GB (default: 1)",
    )
    add(
        "--sections",
        nargs="+",
        default=[*SECTIONS, "seek"],
        metavar="NAME",
        help=f"which of {', '.join(SECTIONS)}, seek (default: all)",
    )
    add(
        "--torch-threads",
        type=at_least_one,
        metavar="N",
        help="torch's threads in `floats`, for all alike (default: its own; 1 if others use the machine)",
    )
    add(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds in `reading`, for a machine that others use as well",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where to write other formats and synthetic sets (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="also write everything there")
    return words
