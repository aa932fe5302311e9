"""From packed blocks to a shard set: leave out exact duplicates, write the tables, and the manifest last.

Needs OUT alone, not the sources, so it serves one machine that packed all blocks and many that packed some each.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from shards.builder.parts import remove_part_locks
from shards.builder.plan import BY_SOURCE, SOURCES, Plan, parse_splits
from shards.builder.records import (
    DUPLICATE,
    Entry,
    Record,
    load_record,
    mark_duplicates,
    record_path,
    save_record,
)
from shards.errors import UserError
from shards.files import open_atomic
from shards.format.index import INDEX, index_rows, join_rows, write_index
from shards.format.manifest import MANIFEST, ONE_SPLIT, Manifest, Shard, save_manifest, split_folder
from shards.format.tar_layout import TarOfSamples, pixels_view

LEFT_OUT = "left_out.tsv"


class RepackError(UserError):
    """Blocks must be packed once more: a duplicate they dropped is the only one now. Their records are gone."""


@dataclass(frozen=True)
class BuildResult:
    """What a finished build amounts to."""

    manifest: Manifest
    num_sources: int

    @property
    def num_packed(self) -> int:
        return sum(self.manifest.samples(split) for split in self.manifest.splits)


def finalize(root: Path, plan: Plan, strict: bool = False) -> BuildResult:
    """Make OUT a shard set; all blocks must be packed. Raises `UserError` if nothing, or with `strict` not all, is."""
    drop_duplicates(root, plan)
    records = [load_record(root, plan, block) for block in range(plan.num_blocks)]
    left_out = [entry for record in records for entry in record.left_out]
    write_left_out(root, left_out)
    _check_left_out(root, plan, left_out, strict)
    splits = {split: _shards_of(records, split) for split in _split_names(plan, records)}
    for split in splits:
        write_index(split_folder(root, split) / INDEX, index_table(plan, records, split))
    _remove_leftovers(root, splits)
    parameters = plan.parameters
    manifest = Manifest(
        size=parameters.size,
        fit=parameters.fit,
        dtype=parameters.dtype,
        splits={**splits},
        left_out=dict(sorted(Counter(entry.reason for entry in left_out).items())),
    )
    save_manifest(manifest, root)
    return BuildResult(manifest, plan.num_sources)


def _check_left_out(root: Path, plan: Plan, left_out: list[Entry], strict: bool) -> None:
    if not left_out or (not strict and len(left_out) < plan.num_sources):
        return
    (root / MANIFEST).unlink(missing_ok=True)
    what = f"{say_left_out(left_out, plan.num_sources)}; all are listed in {root / LEFT_OUT}"
    raise UserError(what + ("; mend them or drop --strict" if strict else ""))


def say_left_out(left_out: Sequence[Entry], num_sources: int) -> str:
    """How many of the sources are left out, and why the first is."""
    first = left_out[0]
    why = f"{first.reason}: {first.detail}" if first.detail else first.reason
    return (
        f"{len(left_out)} of {num_sources} images cannot be packed, first {first.source!r} ({why})"
    )


def _split_names(plan: Plan, records: Iterable[Record]) -> list[str]:
    if plan.parameters.splits == BY_SOURCE:
        return sorted({split for record in records for split in record.shards})
    return [name for name, _ in parse_splits(plan.parameters.splits)] or [ONE_SPLIT]


def _shards_of(records: Iterable[Record], split: str) -> tuple[Shard, ...]:
    return tuple(record.shards[split] for record in records if split in record.shards)


def index_table(plan: Plan, records: Iterable[Record], split: str) -> np.ndarray:
    """The split's `index.npy`, from the records alone."""
    size, dtype = plan.parameters.size, plan.parameters.dtype
    packed = ([entry for entry in record.entries if entry.is_in(split)] for record in records)
    return join_rows(
        [index_rows([e.key for e in each], [e.crc32 for e in each], size, dtype) for each in packed]
    )


def find_duplicates(root: Path, plan: Plan) -> dict[int, dict[int, str]]:
    """Per block, the later ones of images with the same stored pixels: key -> name of the first of its kind.

    The same encoded bytes give the same pixels, so this finds copies of a file and of a picture alike.
    """
    keys, digests = [], []
    for block in range(plan.num_blocks):
        for entry in load_record(root, plan, block).entries:
            if entry.packed:
                keys.append(entry.key)
                digests.append(entry.packed[:32])
    if not keys:
        return {}
    _, firsts, groups = np.unique(np.array(digests, "S32"), return_index=True, return_inverse=True)
    later = np.flatnonzero(
        firsts[groups] != np.arange(len(keys))
    )  # keys ascend, so the first place is the first key
    names = _names(root, plan, {keys[firsts[groups[place]]] for place in later})
    found: dict[int, dict[int, str]] = {}
    for place in later:
        found.setdefault(keys[place] // plan.block_size, {})[keys[place]] = names[
            keys[firsts[groups[place]]]
        ]
    return found


def _names(root: Path, plan: Plan, keys: set[int]) -> dict[int, str]:
    names = {}
    for block in sorted({key // plan.block_size for key in keys}):
        names.update(
            {
                entry.key: entry.source
                for entry in load_record(root, plan, block).entries
                if entry.key in keys
            }
        )
    return names


def drop_duplicates(root: Path, plan: Plan) -> None:
    """Rewrite the shards that hold later copies of an image without them; what is so already stays untouched.

    Raises `RepackError` if what was dropped as a duplicate is one no longer, because its first copy has changed.
    """
    duplicates = find_duplicates(root, plan)
    _forget_lost(root, plan, duplicates)
    for block in range(plan.num_blocks):
        record = load_record(root, plan, block)
        wanted = mark_duplicates(record, duplicates.get(block, {}))
        if wanted != record:
            (root / MANIFEST).unlink(missing_ok=True)
            save_record(_rewrite(root, plan, record, wanted), root)


def _forget_lost(root: Path, plan: Plan, duplicates: Mapping[int, Mapping[int, str]]) -> None:
    """Delete the records of blocks that would get an image back whose pixels are no longer there."""
    lost = []
    for block in range(plan.num_blocks):
        dropped = (
            entry.key
            for entry in load_record(root, plan, block).left_out
            if entry.reason == DUPLICATE
        )
        if not duplicates.get(block, {}).keys() >= set(dropped):
            lost.append(block)
    if lost:
        (root / MANIFEST).unlink(missing_ok=True)
        for block in lost:
            record_path(root, block).unlink()
        raise RepackError(
            f"{root}: {len(lost)} blocks must be packed again: run the same build again"
        )


def _rewrite(root: Path, plan: Plan, before: Record, wanted: Record) -> Record:
    """Copy the wanted samples of a block to new shards; returns the record that tells of them."""
    shards = {}
    for split, shard in before.shards.items():
        keys = set(wanted.keys(split))
        if keys == set(before.keys(split)):
            shards[split] = shard
        elif keys:
            shards[split] = _copy(
                root, plan, shard, [each for each in before.entries if each.is_in(split)], keys
            )
        else:
            for path in (root / shard.path, (root / shard.path).with_suffix(".idx")):
                path.unlink(missing_ok=True)
    return replace(wanted, shards=shards)


def _copy(root: Path, plan: Plan, shard: Shard, entries: list[Entry], wanted: set[int]) -> Shard:
    """Write the shard again with the `wanted` of its samples; raises `UserError` if one is not what its entry says."""
    size, dtype = plan.parameters.size, plan.parameters.dtype
    view = pixels_view(root / shard.path, shard.samples, size, dtype)
    with TarOfSamples(root, shard.path, size, dtype) as tar:
        for entry, sample in zip(entries, view, strict=True):
            pixels = sample.tobytes()
            if sha256(pixels).hexdigest() != entry.packed:
                raise UserError(
                    f"{root / shard.path} has changed under the build: run the same build again"
                )
            if entry.key in wanted:
                tar.add(entry.key, pixels)
    assert tar.shard
    assert tar.shard.samples == len(wanted)
    return tar.shard


def write_left_out(root: Path, left_out: list[Entry]) -> None:
    """OUT/left_out.tsv: source, reason, detail; control characters in names are escaped as in JSON."""
    if not left_out:
        (root / LEFT_OUT).unlink(missing_ok=True)
        return
    with open_atomic(root / LEFT_OUT) as stream:
        for entry in left_out:
            fields = (entry.source, entry.reason, entry.detail)
            line = "\t".join(json.dumps(field, ensure_ascii=False)[1:-1] for field in fields)
            stream.write(os.fsencode(line + "\n"))


def _remove_leftovers(root: Path, splits: Mapping[str, Iterable[Shard]]) -> None:
    """Temporary files of attempts that were killed, and shards of earlier attempts that the manifest will not name."""
    remove_part_locks(root)
    for folder in {root, root / SOURCES, *(split_folder(root, split) for split in splits)}:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
    for split, shards in splits.items():
        wanted = {(root / shard.path).stem for shard in shards}
        for path in split_folder(root, split).glob("[0-9]*"):
            if path.suffix in (".tar", ".idx") and path.stem not in wanted:
                path.unlink()
