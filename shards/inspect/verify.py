"""Verify every byte of a shard set against its manifest, record files and indexes."""

from __future__ import annotations

import mmap
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from shards.builder.finalize import index_table
from shards.builder.pack import Report
from shards.builder.plan import BUILD, Plan, load_plan
from shards.builder.records import Record, SourceEntry, load_record
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import sha256_of
from shards.format.index import INDEX, load_index
from shards.format.manifest import (
    MANIFEST,
    MEMBER,
    TAR_BLOCK,
    Manifest,
    Shard,
    index_text,
    key_name,
    load_manifest,
    member_bytes,
    member_header,
    split_folder,
)
from shards.format.tar_layout import content_offsets, member_stride, tar_header
from shards.progress import ProgressLine

REPAIR = "delete it and run the same build again, or restore it"


def verify(root: Path, workers: int = 1, quiet: bool = False) -> Manifest:
    """Check every byte of a shard set and return its manifest.

    Raises UserError, naming the first damaged shard, member and byte range.
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
    """Raise UserError unless the manifest and the record files agree.

    They must list the same shards, and have the same number of images left out for each
    reason.
    """
    recorded = {shard.path: shard for record in records for shard in record.shards.values()}
    stated = {shard.path: shard for shards in manifest.splits.values() for shard in shards}
    for path in sorted({*recorded, *stated}):
        if recorded.get(path) != stated.get(path):
            raise UserError(
                f"{root / path}: {MANIFEST} and the record of its sources differ; {REPAIR}"
            )
    left_out = Counter(entry.reason for record in records for entry in record.left_out)
    if left_out != Counter(manifest.left_out):
        raise UserError(f"{root / MANIFEST}: left_out does not match the records; {REPAIR}")


def _check_index(
    root: Path, manifest: Manifest, plan: Plan, records: Sequence[Record], split: str
) -> None:
    path = split_folder(root, split) / INDEX
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
    """Return a description of the first damage in a block's shards, "" if none.

    A block is a group of images that were packed together.
    """
    record = load_record(root, plan, block)
    damages = (_shard_damage(root, plan, record, split) for split in sorted(record.shards))
    first = next((damage for damage in damages if damage), "")
    report(len(record.entries))
    return first


def _shard_damage(root: Path, plan: Plan, record: Record, split: str) -> str:
    shard = record.shards[split]
    path = root / shard.path
    if not path.is_file():
        return f"{path} is missing"
    entries = [entry for entry in record.entries if entry.is_in(split)]
    size, dtype = plan.parameters.size, plan.parameters.dtype
    intact = path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    damage = first_damage(path, entries, shard, size, dtype)
    if damage or not intact:
        return f"{path} is damaged: {damage or 'its SHA-256 is not the recorded one'}"
    keys, offsets = [each.key for each in entries], content_offsets(len(entries), size, dtype)
    index = path.with_suffix(".idx")
    text = index_text(np.array(keys), offsets, size, dtype)
    if not index.is_file() or index.read_text(errors="replace") != text:
        return f"{index} does not match its tar"
    return ""


def first_damage(
    path: Path, entries: Sequence[SourceEntry], shard: Shard, size: int, dtype: str
) -> str:
    """Return a description of the first damage in a tar, "" if there is none.

    It names the member and the byte range. `entries` are the record entries of the
    tar's samples. Headers are compared byte by byte and pixels by their SHA-256, which
    also finds a tar that has the recorded SHA-256 but other pixels than its entries
    say.
    """
    if path.stat().st_size == 0:
        return "it is empty"
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for index, entry in enumerate(entries):
            if damage := _member_damage(data, index, entry, size, dtype):
                return f"member {key_name(entry.key)}.{MEMBER} ({entry.source!r}), {damage}"
        end = len(entries) * member_stride(size, dtype)
        if len(data) != shard.bytes:
            return f"it has {len(data)} bytes instead of {shard.bytes}"
        if any(data[end:]):
            return f"after the last member, bytes {end}-{len(data) - 1}: not zero"
    return ""


def _member_damage(data: mmap.mmap, index: int, entry: SourceEntry, size: int, dtype: str) -> str:
    header, npy = tar_header(entry.key, size, dtype), member_header(size, dtype)
    start = index * member_stride(size, dtype)
    content = start + TAR_BLOCK
    body, end = content + len(npy), content + member_bytes(size, dtype)
    after = start + member_stride(size, dtype)
    if len(data) < after:
        return f"bytes {start}-{after - 1}: the file ends at byte {len(data)}"
    if data[start:content] != header:
        return f"bytes {start}-{content - 1}: wrong tar header"
    if data[content:body] != npy:
        return f"bytes {content}-{body - 1}: wrong npy header"
    pixels = data[body:end]
    if sha256(pixels).hexdigest() != entry.packed:
        return f"bytes {body}-{end - 1}: pixels are not those recorded"
    if zlib.crc32(pixels) != entry.crc32:
        return f"bytes {body}-{end - 1}: pixels do not have the recorded CRC-32"
    if any(data[end:after]):
        return f"bytes {end}-{after - 1}: padding is not zero"
    return ""
