"""Colour statistics per split: the ab histogram, and mean and std of L, a and b.

The histogram bins follow Zhang, Isola, Efros, "Colorful Image Colorization" (2016),
section 2.2: 10 units wide, centred at multiples of 10.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np

from shards.builder.pack import Report
from shards.builder.parts import Part
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import (
    path_below,
    read_regular,
    remove_stale_temporaries,
    write_atomic,
)
from shards.format.manifest import Manifest, Shard, load_manifest
from shards.format.tar_layout import read_pixels
from shards.json_files import parse_json
from shards.progress import ProgressLine

# The bin centres are the multiples of 10, as in the authors' list of the 313 in-gamut
# points, so the edges are at -115, -105, ..., 115.
BIN = 10
CENTRES = range(-110, 111, BIN)
EDGES = tuple(centre - BIN // 2 for centre in (*CENTRES, 120))
_CHUNK_PIXELS = 1 << 20
_MAX_PART_BYTES = 64 << 20  # 23 x 23 counts per split
# All sums are integers, in these units: one uint8 level or, for float16, 2^-24. So they
# are exact and do not depend on the order of summation. Therefore the sums over several
# parts of the shards, computed on several machines, merge into exactly the result of a
# single run.
_UNITS = {
    "uint8": (Fraction(20, 51), Fraction(1), Fraction(1)),
    "float16": (Fraction(1, 1 << 24),) * 3,
}
_PART_NAME = re.compile(r"statistics-(\d+)-of-(\d+)\.json")


@dataclass(frozen=True)
class Sums:
    """Sums over a set of pixels, from which the colour statistics are computed."""

    counts: np.ndarray  # (23, 23) int64: pixels per bin of ab, with a along the rows
    total: tuple[int, ...]  # sums of L, a, b in units of `_UNITS`
    squares: tuple[int, ...]  # sums of their squares
    pixels: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.counts + other.counts,
            tuple(map(int.__add__, self.total, other.total)),
            tuple(map(int.__add__, self.squares, other.squares)),
            self.pixels + other.pixels,
        )


EMPTY = Sums(np.zeros((len(CENTRES),) * 2, np.int64), (0, 0, 0), (0, 0, 0), 0)


def compute_statistics(root: Path, workers: int = 1, quiet: bool = False) -> dict[str, Any]:
    """Return the colour statistics of a shard set, ready to be written as JSON.

    Raises UserError if `root` is not a shard set or a shard is damaged.
    """
    manifest = load_manifest(root)
    return _document(manifest, _count(root, manifest, Part(1, 1), workers, quiet))


def statistics_of_part(
    root: Path, part: Part, workers: int = 1, quiet: bool = False
) -> dict[str, Any]:
    """Return the sums over the pixels of part I of N of the shards, ready for JSON.

    Raises UserError if `root` is not a shard set or a shard is damaged.
    """
    manifest = load_manifest(root)
    sums = _count(root, manifest, part, workers, quiet)
    splits = {
        split: {
            **vars(each),
            "counts": each.counts.tolist(),
            "total": list(each.total),
            "squares": list(each.squares),
        }
        for split, each in sums.items()
    }
    return {
        "dataset_id": manifest.dataset_id,
        "part": part.number,
        "parts": part.count,
        "sums": splits,
    }


def part_path(root: Path, part: Part) -> Path:
    """Return the path `root`/statistics-I-of-N.json, for the sums of part I of N."""
    return root / f"statistics-{part.number}-of-{part.count}.json"


def merge_statistics(root: Path, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the colour statistics of a shard set by adding the sums of its N parts.

    `paths` are the files that `colortrain shards statistics --part I/N` wrote, by
    default all in `root`. Raises UserError if a part is missing, is damaged, is given
    twice or belongs to another dataset.
    """
    manifest = load_manifest(root)
    paths = paths or sorted(
        path for path in root.glob("statistics-*.json") if _PART_NAME.fullmatch(path.name)
    )
    if not paths:
        raise UserError(
            f"{root} has no statistics-I-of-N.json: "
            f"run `colortrain shards statistics {root} --part I/N` first"
        )
    merged = dict.fromkeys(manifest.splits, EMPTY)
    loaded: dict[int, Path] = {}
    parts = 0
    for path in paths:
        number, count, sums = _load_part(path, manifest)
        if number in loaded or parts not in (0, count):
            raise UserError(
                f"{path} conflicts with {loaded.get(number, paths[0])}: "
                "give each part once, all with the same N"
            )
        loaded[number], parts = path, count
        merged = {split: merged[split] + sums[split] for split in merged}
    if len(loaded) < parts:
        part = Part(next(number for number in count_up(1) if number not in loaded), parts)
        raise UserError(f"part {part} of the statistics is missing: run it with --part {part}")
    return _document(manifest, merged)


def _load_part(path: Path, manifest: Manifest) -> tuple[int, int, dict[str, Sums]]:
    try:
        document = parse_json(read_regular(path, _MAX_PART_BYTES))
        part = Part(document["part"], document["parts"])
        sums = {split: _parse_sums(document["sums"][split]) for split in manifest.splits}
        dataset_id = document["dataset_id"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UserError) as error:
        raise UserError(
            f"{path} is not a part of the statistics ({error!r}): write it again with --part"
        ) from None
    if dataset_id != manifest.dataset_id:
        raise UserError(
            f"{path} belongs to dataset {dataset_id}, not {manifest.dataset_id}: "
            f"write it again with --part {part}"
        )
    return part.number, part.count, sums


def _parse_sums(fields: dict[str, Any]) -> Sums:
    counts = np.array(fields["counts"], np.int64)
    if counts.shape != EMPTY.counts.shape:
        raise ValueError(f"counts of shape {counts.shape}")
    sums = Sums(counts, tuple(fields["total"]), tuple(fields["squares"]), fields["pixels"])
    if len(sums.total) != 3 or not all(
        type(value) is int for value in (*sums.total, *sums.squares, sums.pixels)
    ):
        raise TypeError("total, squares and pixels must be three, three and one integers")
    # The second holds for all numbers: a variance is not negative.
    if counts.sum() != sums.pixels or any(
        total**2 > square * sums.pixels
        for total, square in zip(sums.total, sums.squares, strict=True)
    ):
        raise ValueError("its sums contradict each other")
    return sums


def save_statistics(document: dict[str, Any], path: Path) -> None:
    """Write colour statistics, or the sums of one part of the shards, as JSON."""
    remove_stale_temporaries(path)
    write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")


def _count(
    root: Path, manifest: Manifest, part: Part, workers: int, quiet: bool
) -> dict[str, Sums]:
    """Return, for each split, the sums over the pixels of one part of the shards."""
    shards = [(split, shard) for split, shards in manifest.splits.items() for shard in shards]
    selected = part.blocks(len(shards))
    shards = shards[selected.start : selected.stop]
    tasks: list[Task[Sums]] = [
        partial(_sums_of_shard, root, manifest, shard) for _, shard in shards
    ]
    total = sum(shard.samples for _, shard in shards)
    sums = dict.fromkeys(manifest.splits, EMPTY)
    with ProgressLine("counting colours", total, "images", shown=not quiet) as progress:
        for index, each in run_tasks(tasks, workers, progress):
            sums[shards[index][0]] += each
        progress.advance_to(total)
    return sums


def _document(manifest: Manifest, sums: dict[str, Sums]) -> dict[str, Any]:
    splits = {
        split: _describe(manifest.samples(split), each, manifest.dtype)
        for split, each in sums.items()
    }
    return {
        "dataset_id": manifest.dataset_id,
        "ab_centres": list(CENTRES),
        "ab_edges": list(EDGES),
        "splits": splits,
    }


def _describe(samples: int, sums: Sums, dtype: str) -> dict[str, Any]:
    pixels = max(sums.pixels, 1)
    means = [Fraction(total, pixels) for total in sums.total]
    variances = [
        Fraction(square, pixels) - mean**2 for square, mean in zip(sums.squares, means, strict=True)
    ]
    units = dict(zip("Lab", _UNITS[dtype], strict=True))
    return {
        "samples": samples,
        "pixels": sums.pixels,
        "mean": {
            name: float(mean * unit)
            for mean, (name, unit) in zip(means, units.items(), strict=True)
        },
        "std": {
            name: math.sqrt(each * unit**2)
            for each, (name, unit) in zip(variances, units.items(), strict=True)
        },
        "ab_histogram": sums.counts.tolist(),  # [a][b], pixels
    }


def _sums_of_shard(root: Path, manifest: Manifest, shard: Shard, report: Report) -> Sums:
    path, chunk = path_below(root, shard.path), max(1, _CHUNK_PIXELS // manifest.size**2)
    sums, done = EMPTY, 0
    for stored in read_pixels(path, shard.samples, manifest.size, manifest.dtype, chunk):
        sums += color_sums(stored)
        done += len(stored)
        report(done)
    return sums


def color_sums(stored: np.ndarray) -> Sums:
    """Return the sums over all pixels of `stored` samples.

    stored: (..., 3, H, W), uint8 or float16, in the stored format.
    """
    levels, bins = _levels(str(stored.dtype)), _bins(str(stored.dtype))
    codes = (
        np.ascontiguousarray(np.moveaxis(stored, -3, 0)).reshape(3, -1).view(f"u{stored.itemsize}")
    )
    indices = bins.take(codes[1]) * len(CENTRES) + bins.take(codes[2])
    counts = np.bincount(indices, minlength=len(CENTRES) ** 2).reshape(EMPTY.counts.shape)
    moments = [
        _moments(np.bincount(code), level) for code, level in zip(codes, levels, strict=True)
    ]
    total, squares = zip(*moments, strict=True)
    return Sums(counts, total, squares, codes.shape[1])


def _moments(counts: np.ndarray, levels: np.ndarray) -> tuple[int, int]:
    """Return the sum and the sum of squares of `levels` that occur `counts` times."""
    present = np.flatnonzero(counts)  # the sums are Python integers, which do not overflow
    pairs: Iterable[tuple[int, int]] = list(
        zip(counts[present].tolist(), levels[present].tolist(), strict=True)
    )
    return sum(count * level for count, level in pairs), sum(
        count * level**2 for count, level in pairs
    )


@cache
def _levels(dtype: str) -> np.ndarray:
    """Return the value of L, a and b, in `_UNITS`, for each stored bit pattern.

    The table is int64: (3, 256) for uint8, (3, 65536) for float16.
    """
    if dtype == "uint8":
        return np.arange(256) - np.array([[0], [128], [128]])
    return np.tile((_float16_values() * (1 << 24)).astype(np.int64), (3, 1))


@cache
def _bins(dtype: str) -> np.ndarray:
    """Return a table that maps each stored bit pattern of a or b to its histogram bin.

    The table is int64: (256,) for uint8, (65536,) for float16.
    """
    # A value on the edge between two bins counts in the upper bin.
    values = np.arange(256) - 128.0 if dtype == "uint8" else _float16_values()
    return np.clip(np.floor_divide(values - EDGES[0], BIN), 0, len(CENTRES) - 1).astype(np.int64)


def _float16_values() -> np.ndarray:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0)  # these do not occur in images
