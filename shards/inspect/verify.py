"""Verify every byte of a shard set against its manifest, record files and indexes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from shards.builder.finalize import count_left_out, index_table
from shards.builder.integrity import recorded_index, tar_damage
from shards.builder.pack import Report
from shards.builder.plan import BUILD, Plan, load_plan
from shards.builder.records import Record, load_record
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import path_below
from shards.format.index import index_path, load_index
from shards.format.manifest import MANIFEST, Manifest, load_manifest
from shards.progress import ProgressLine

REPAIR = "delete it and run the same build again, or restore it"


def verify(root: Path, workers: int = 1, quiet: bool = False) -> Manifest:
    """Check every byte of a shard set and return its manifest.

    Raises UserError, which names the first damaged shard, member and byte range.
    """
    manifest = load_manifest(root)
    plan = load_plan(root)
    _check_plan(root, manifest, plan)
    records = [load_record(root, plan, block) for block in range(plan.num_blocks)]
    _check_records(root, manifest, plan, records)
    for split in manifest.splits:
        _check_index(root, manifest, plan, records, split)
    _check_shards(root, plan, records, workers, quiet)
    return manifest


def _check_plan(root: Path, manifest: Manifest, plan: Plan) -> None:
    for name in ("size", "fit", "dtype"):
        stated, planned = getattr(manifest, name), getattr(plan.parameters, name)
        if stated != planned:
            raise UserError(
                f"{root / MANIFEST} has {name} {stated}, but {root / BUILD} has {planned}: "
                "build again"
            )


def _check_records(root: Path, manifest: Manifest, plan: Plan, records: Sequence[Record]) -> None:
    """Raise UserError unless the manifest and the record files agree."""
    recorded = {shard.path: shard for record in records for shard in record.shards.values()}
    stated = {shard.path: shard for shards in manifest.splits.values() for shard in shards}
    for path in sorted({*recorded, *stated}):
        if recorded.get(path) != stated.get(path):
            raise UserError(
                f"{root / path}: {MANIFEST} and the record of its sources differ; {REPAIR}"
            )
    if count_left_out(plan, records) != manifest.left_out:
        raise UserError(f"{root / MANIFEST}: left_out does not match the records; {REPAIR}")


def _check_index(
    root: Path, manifest: Manifest, plan: Plan, records: Sequence[Record], split: str
) -> None:
    path = path_below(root, index_path(split))
    table = load_index(path, manifest.samples(split))
    if not np.array_equal(table, index_table(plan, records, split)):
        raise UserError(f"{path} does not match the tars; {REPAIR}")


def _check_shards(
    root: Path, plan: Plan, records: Sequence[Record], workers: int, quiet: bool
) -> None:
    tasks: list[Task[str]] = [partial(_check_block, root, plan, record.block) for record in records]
    damaged: dict[int, str] = {}
    with ProgressLine("verifying", plan.num_sources, "images", shown=not quiet) as progress:
        for index, damage in run_tasks(tasks, workers, progress):
            if damage:
                damaged[index] = damage
        progress.advance_to(plan.num_sources)
    if damaged:
        more = f" (more damaged blocks: {len(damaged) - 1})" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[min(damaged)]}; {REPAIR}{more}")


def _check_block(root: Path, plan: Plan, block: int, report: Report) -> str:
    """Return a message about the first damage in a block's shards, "" if none."""
    record = load_record(root, plan, block)
    damages = (_shard_damage(root, plan, record, split) for split in sorted(record.shards))
    first = next((damage for damage in damages if damage), "")
    report(len(record.entries))
    return first


def _shard_damage(root: Path, plan: Plan, record: Record, split: str) -> str:
    damage = tar_damage(root, plan, record, split)
    if damage:
        return damage
    index = path_below(root, record.shards[split].path).with_suffix(".idx")
    text = recorded_index(plan, record, split)
    if not index.is_file() or index.read_bytes() != text.encode():
        return f"{index} does not match its tar"
    return ""
