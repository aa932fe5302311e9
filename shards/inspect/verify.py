"""Read a shard set again, all of it, against its manifest and records; say where the first damage lies."""

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
from shards.builder.records import Entry, Record, load_record
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

MEND = "delete it and run the same build again, or restore it"


def verify(root: Path, workers: int = 1, quiet: bool = False) -> Manifest:
    """Check every byte of a shard set; raises `UserError` that names the first broken shard, member and byte range."""
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
                f"{root / MANIFEST} says {name} {stated}, {root / BUILD} says {planned}: build again"
            )


def _check_records(root: Path, manifest: Manifest, plan: Plan, records: Sequence[Record]) -> None:
    """The manifest's shards and counts are exactly those of the records."""
    recorded = {shard.path: shard for record in records for shard in record.shards.values()}
    named = {shard.path: shard for shards in manifest.splits.values() for shard in shards}
    for path in sorted({*recorded, *named}):
        if recorded.get(path) != named.get(path):
            raise UserError(
                f"{root / path}: {MANIFEST} and the record of its sources disagree; {MEND}"
            )
    left_out = Counter(entry.reason for record in records for entry in record.left_out)
    if left_out != Counter(manifest.left_out):
        raise UserError(f"{root / MANIFEST}: left_out is not what the records say; {MEND}")


def _check_index(
    root: Path, manifest: Manifest, plan: Plan, records: Sequence[Record], split: str
) -> None:
    path = split_folder(root, split) / INDEX
    if not np.array_equal(
        load_index(path, manifest.samples(split)), index_table(plan, records, split)
    ):
        raise UserError(f"{path} does not agree with the tars; {MEND}")


def _check_shards(
    root: Path, plan: Plan, records: Sequence[Record], workers: int, quiet: bool
) -> None:
    tasks: list[Task[str]] = [partial(_check_block, root, plan, record.block) for record in records]
    broken: dict[int, str] = {}
    with ProgressLine("verifying", plan.num_sources, "images", shown=not quiet) as progress:
        for place, damage in run_tasks(tasks, workers, progress):
            if damage:
                broken[place] = damage
        progress.advance_to(plan.num_sources)
    if broken:
        more = f" ({len(broken) - 1} more blocks are broken)" if len(broken) > 1 else ""
        raise UserError(f"{broken[min(broken)]}; {MEND}{more}")


def _check_block(root: Path, plan: Plan, block: int, report: Report) -> str:
    """What is wrong with the first broken shard of a block; "" if nothing is."""
    record = load_record(root, plan, block)
    damages = (_damage(root, plan, record, split) for split in sorted(record.shards))
    first = next((damage for damage in damages if damage), "")
    report(len(record.entries))
    return first


def _damage(root: Path, plan: Plan, record: Record, split: str) -> str:
    shard = record.shards[split]
    path = root / shard.path
    if not path.is_file():
        return f"{path} is missing"
    entries = [entry for entry in record.entries if entry.is_in(split)]
    size, dtype = plan.parameters.size, plan.parameters.dtype
    sound = path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    where = first_damage(path, entries, shard, size, dtype)
    if where or not sound:
        return f"{path} is broken: {where or 'its SHA-256 is not the recorded one'}"
    text = index_text(
        np.array([each.key for each in entries]),
        content_offsets(len(entries), size, dtype),
        size,
        dtype,
    )
    index = path.with_suffix(".idx")
    if not index.is_file() or index.read_text(errors="replace") != text:
        return f"{index} does not agree with its tar"
    return ""


def first_damage(path: Path, entries: Sequence[Entry], shard: Shard, size: int, dtype: str) -> str:
    """The first member and byte range of a tar that is not what its record says; "" if there is none.

    Headers are compared byte by byte, pixels by their SHA-256: a tar can be the one recorded and hold others' pixels.
    """
    if path.stat().st_size == 0:
        return "it is empty"
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for place, entry in enumerate(entries):
            if found := _member_damage(data, place, entry, size, dtype):
                return f"member {key_name(entry.key)}.{MEMBER} ({entry.source!r}), {found}"
        end = len(entries) * member_stride(size, dtype)
        if len(data) != shard.bytes:
            return f"it has {len(data)} bytes instead of {shard.bytes}"
        if any(data[end:]):
            return f"after the last member, bytes {end}-{len(data) - 1}: not zero"
    return ""


def _member_damage(data: mmap.mmap, place: int, entry: Entry, size: int, dtype: str) -> str:
    header, npy = tar_header(entry.key, size, dtype), member_header(size, dtype)
    start = place * member_stride(size, dtype)
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
        return f"bytes {body}-{end - 1}: pixels have not the CRC-32 recorded"
    if any(data[end:after]):
        return f"bytes {end}-{after - 1}: padding is not zero"
    return ""
