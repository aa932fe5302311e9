"""Finalize a build: remove duplicates, then write the indexes and the manifest.

This runs when all images are packed.
"""

from __future__ import annotations

import json
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
    Record,
    SourceEntry,
    load_record,
    mark_duplicates,
    record_path,
    save_record,
)
from shards.errors import UserError
from shards.files import open_atomic, path_below
from shards.format.index import index_path, index_rows, join_rows, write_index
from shards.format.manifest import MANIFEST, ONE_SPLIT, Manifest, Shard, save_manifest
from shards.format.tar_layout import TarOfSamples, read_pixels

# Only the output folder is read and no source images, so it does not matter which
# machines packed them.
LEFT_OUT = "left_out.tsv"


class RepackError(UserError):
    """Raised when blocks of images must be packed again; their records were deleted."""


@dataclass(frozen=True)
class BuildResult:
    """The manifest of a finished build, and the number of its source images."""

    manifest: Manifest
    num_sources: int

    @property
    def num_packed(self) -> int:
        """Number of packed images in all splits together."""
        return sum(self.manifest.samples(split) for split in self.manifest.splits)


def finalize(root: Path, plan: Plan, strict: bool = False) -> BuildResult:
    """Complete the shard set in `root`, in which all images of `plan` are packed.

    Raises UserError if no image could be packed or, with `strict`, if any was left out.
    Raises RepackError if some images must be packed again.
    """
    drop_duplicates(root, plan)
    records = [load_record(root, plan, block) for block in range(plan.num_blocks)]
    left_out = [entry for record in records for entry in record.left_out]
    write_left_out(root, left_out)
    _check_left_out(root, plan, left_out, strict)
    splits = {split: _shards_of(records, split) for split in _split_names(plan, records)}
    for split in splits:
        path = path_below(root, index_path(split), writing=True)
        write_index(path, index_table(plan, records, split))
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


def _check_left_out(root: Path, plan: Plan, left_out: list[SourceEntry], strict: bool) -> None:
    if not left_out or (not strict and len(left_out) < plan.num_sources):
        return
    (root / MANIFEST).unlink(missing_ok=True)
    text = f"{describe_left_out(left_out, plan.num_sources)}; all are listed in {root / LEFT_OUT}"
    raise UserError(text + ("; fix them or omit --strict" if strict else ""))


def describe_left_out(left_out: Sequence[SourceEntry], num_sources: int) -> str:
    """Return a message that says how many images were left out, and which first."""
    first = left_out[0]
    reason = f"{first.reason}: {first.detail}" if first.detail else first.reason
    return (
        f"{len(left_out)} of {num_sources} images cannot be packed, "
        f"first {first.source!r} ({reason})"
    )


def _split_names(plan: Plan, records: Iterable[Record]) -> list[str]:
    if plan.parameters.splits == BY_SOURCE:
        return sorted({split for record in records for split in record.shards})
    return [name for name, _ in parse_splits(plan.parameters.splits)] or [ONE_SPLIT]


def _shards_of(records: Iterable[Record], split: str) -> tuple[Shard, ...]:
    return tuple(record.shards[split] for record in records if split in record.shards)


def index_table(plan: Plan, records: Iterable[Record], split: str) -> np.ndarray:
    """Return the content of a split's `index.npy`, from the record files of the build.

    int64 (samples, 3): the key, byte offset and CRC-32 of each sample.
    """
    size, dtype = plan.parameters.size, plan.parameters.dtype
    packed = ([entry for entry in record.entries if entry.is_in(split)] for record in records)
    return join_rows(
        [index_rows([e.key for e in each], [e.crc32 for e in each], size, dtype) for each in packed]
    )


def find_duplicates(root: Path, plan: Plan) -> dict[int, dict[int, str]]:
    """Find the images whose stored pixels are equal to an earlier image's pixels.

    Returns {block number: {key of the duplicate: source name of its first copy}}.
    """
    keys, digests = [], []
    for block in range(plan.num_blocks):
        for entry in load_record(root, plan, block).entries:
            if entry.packed:  # pixels, because equal files have equal pixels too
                keys.append(entry.key)
                digests.append(entry.packed[:32])
    if not keys:
        return {}
    _, firsts, groups = np.unique(np.array(digests, "S32"), return_index=True, return_inverse=True)
    # Keys ascend, so the first index with a digest is the one with the smallest key.
    first_keys = {
        keys[later]: keys[firsts[groups[later]]]
        for later in np.flatnonzero(firsts[groups] != np.arange(len(keys)))
    }
    names = _names(root, plan, set(first_keys.values()))
    duplicates: dict[int, dict[int, str]] = {}
    for key, first_key in first_keys.items():
        duplicates.setdefault(key // plan.block_size, {})[key] = names[first_key]
    return duplicates


def _names(root: Path, plan: Plan, keys: set[int]) -> dict[int, str]:
    """Return the source names of the images with these keys, as {key: name}."""
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
    """Remove duplicates from the shards: of equal images, only the first stays.

    Raises RepackError if some images must be packed again.
    """
    duplicates = find_duplicates(root, plan)
    _delete_stale_records(root, plan, duplicates)
    for block in range(plan.num_blocks):
        record = load_record(root, plan, block)
        updated = mark_duplicates(record, duplicates.get(block, {}))
        if updated != record:
            (root / MANIFEST).unlink(missing_ok=True)
            save_record(_rewrite(root, plan, record, updated), root)


def _delete_stale_records(
    root: Path, plan: Plan, duplicates: Mapping[int, Mapping[int, str]]
) -> None:
    """Delete the records of blocks in which images were wrongly removed as duplicates.

    Raises RepackError if there are such blocks.
    """
    # An earlier run removed an image as a duplicate of another image. One of them has
    # changed since then, so they are no longer equal.
    stale = []
    for block in range(plan.num_blocks):
        dropped = (
            entry.key
            for entry in load_record(root, plan, block).left_out
            if entry.reason == DUPLICATE
        )
        if not duplicates.get(block, {}).keys() >= set(dropped):
            stale.append(block)
    if stale:
        (root / MANIFEST).unlink(missing_ok=True)
        for block in stale:
            record_path(root, block).unlink()
        raise RepackError(
            f"{root}: {len(stale)} blocks must be packed again: run the same build again"
        )


def _rewrite(root: Path, plan: Plan, before: Record, updated: Record) -> Record:
    """Rewrite a block's shards for the images in `updated`, and return its record."""
    shards = {}
    for split, shard in before.shards.items():
        keys = set(updated.keys(split))
        if keys == set(before.keys(split)):  # nothing changes
            shards[split] = shard
        elif keys:
            shards[split] = _copy(
                root, plan, shard, [each for each in before.entries if each.is_in(split)], keys
            )
        else:
            path = path_below(root, shard.path, writing=True)
            for each in (path, path.with_suffix(".idx")):
                each.unlink(missing_ok=True)
    return replace(updated, shards=shards)


def _copy(
    root: Path, plan: Plan, shard: Shard, entries: list[SourceEntry], kept: set[int]
) -> Shard:
    """Rewrite a shard with only the samples whose keys are in `kept`; return the shard.

    `entries` are the record entries of the samples in it. Raises UserError if the
    pixels of a sample do not have the SHA-256 in its entry.
    """
    size, dtype = plan.parameters.size, plan.parameters.dtype
    samples = read_pixels(path_below(root, shard.path), shard.samples, size, dtype)
    with TarOfSamples(root, shard.path, size, dtype) as tar:
        for entry, sample in zip(entries, samples, strict=True):
            pixels = sample.tobytes()
            if sha256(pixels).hexdigest() != entry.packed:
                raise UserError(
                    f"{root / shard.path} changed during the build: run the same build again"
                )
            if entry.key in kept:
                tar.add(entry.key, pixels)
    assert tar.shard
    assert tar.shard.samples == len(kept)
    return tar.shard


def write_left_out(root: Path, left_out: list[SourceEntry]) -> None:
    """Write left_out.tsv with one line per image left out, or delete it if none was.

    The columns are the image's source name, the reason and a detail.
    """
    if not left_out:
        (root / LEFT_OUT).unlink(missing_ok=True)
        return
    with open_atomic(root / LEFT_OUT) as stream:
        for entry in left_out:
            fields = (entry.source, entry.reason, entry.detail)
            # Special characters are escaped as in JSON.
            line = "\t".join(json.dumps(field, ensure_ascii=False)[1:-1] for field in fields)
            stream.write((line + "\n").encode("utf-8", "surrogateescape"))


def _remove_leftovers(root: Path, splits: Mapping[str, Iterable[Shard]]) -> None:
    """Delete files of earlier builds that do not belong to the finished shard set."""
    remove_part_locks(root)
    folders = {split: path_below(root, index_path(split), writing=True).parent for split in splits}
    for folder in {root, root / SOURCES, *folders.values()}:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
    for split, shards in splits.items():
        names = {Path(shard.path).stem for shard in shards}
        for path in folders[split].glob("[0-9]*"):
            if path.suffix in (".tar", ".idx") and path.stem not in names:
                path.unlink()
