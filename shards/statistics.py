"""Colour statistics of a shard set, per split: the ab histogram on Zhang's grid, means and deviations of L, a, b.

Zhang, Isola, Efros, "Colorful Image Colorization" (2016), section 2.2: ab quantised on a grid of 10 units; bin centres
are the multiples of 10, as in the authors' list of the 313 in-gamut points, so edges lie at -115, -105, ..., 115.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shards.files import write_whole
from shards.format import Manifest, Shard, load_manifest
from shards.lab import unpack
from shards.pack import Report
from shards.pool import Task, run_tasks
from shards.progress import ProgressLine
from shards.tars import pixels_view

BIN = 10
CENTRES = range(-110, 111, BIN)
EDGES = tuple(centre - BIN // 2 for centre in (*CENTRES, 120))


@dataclass(frozen=True)
class Sums:
    """What adds up over shards: ab counts (23, 23) with a along the rows, sums and squares (3,) of L, a, b, pixels."""

    counts: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    pixels: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.counts + other.counts,
            self.total + other.total,
            self.squares + other.squares,
            self.pixels + other.pixels,
        )


NOTHING = Sums(np.zeros((len(CENTRES),) * 2, np.int64), np.zeros(3), np.zeros(3), 0)


def statistics(root: Path, workers: int = 1, quiet: bool = False) -> dict[str, Any]:
    """The document that `python -m shards statistics` writes."""
    manifest = load_manifest(root)
    named = [(split, shard) for split, shards in manifest.splits.items() for shard in shards]
    tasks: list[Task[Sums]] = [partial(_sums_of_shard, root, manifest, shard) for _, shard in named]
    results: dict[int, Sums] = {}
    total = sum(shard.samples for _, shard in named)
    with ProgressLine("counting colours", total, "images", shown=not quiet) as progress:
        for place, sums in run_tasks(tasks, workers, progress):
            results[place] = sums
        progress.advance_to(total)
    splits = {}
    for split in manifest.splits:  # added up in shard order: floating-point sums then depend on nothing else
        mine = [results[place] for place, (name, _) in enumerate(named) if name == split]
        splits[split] = _describe(manifest.samples(split), sum(mine, NOTHING))
    return {"dataset_id": manifest.dataset_id, "ab_centres": list(CENTRES), "ab_edges": list(EDGES), "splits": splits}


def save_statistics(document: dict[str, Any], path: Path) -> None:
    """Write the document as JSON, whole or not at all."""
    write_whole(path, json.dumps(document, indent=1).encode() + b"\n")


def _describe(samples: int, sums: Sums) -> dict[str, Any]:
    pixels = max(sums.pixels, 1)
    mean = sums.total / pixels
    std = np.sqrt(np.maximum(sums.squares / pixels - mean**2, 0))
    return {
        "samples": samples,
        "pixels": sums.pixels,
        "mean": dict(zip("Lab", mean.tolist(), strict=True)),
        "std": dict(zip("Lab", std.tolist(), strict=True)),
        "ab_histogram": sums.counts.tolist(),  # [a][b], pixels
    }


def _sums_of_shard(root: Path, manifest: Manifest, shard: Shard, report: Report) -> Sums:
    view = pixels_view(root / shard.path, shard.samples, manifest.size, manifest.dtype)
    sums = NOTHING
    for done, stored in enumerate(view, 1):
        sums += sums_of(stored)
        report(done)
    return sums


def sums_of(stored: np.ndarray) -> Sums:
    """The sums of one sample as stored, (3, H, W) uint8 or float16; an ab on an edge counts in the upper bin."""
    lab = unpack(stored).reshape(3, -1)
    place = np.clip(np.floor_divide(lab[1:] - EDGES[0], BIN), 0, len(CENTRES) - 1).astype(np.intp)
    counts = np.bincount(place[0] * len(CENTRES) + place[1], minlength=len(CENTRES) ** 2)
    wide = lab.astype(np.float64)
    return Sums(counts.reshape(len(CENTRES), -1), wide.sum(1), (wide**2).sum(1), lab.shape[1])
