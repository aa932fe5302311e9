"""Finalize a build: apply the images' fates, then write the indexes and the manifest.

This runs when all images are packed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from shards.builder.fates import find_fates
from shards.builder.parts import remove_part_locks
from shards.builder.plan import Plan
from shards.builder.records import (
    Fate,
    Record,
    SourceEntry,
    load_record,
    record_path,
    save_record,
    with_fates,
)
from shards.builder.selection import UNUSED
from shards.builder.splits import SOURCES
from shards.errors import UserError
from shards.files import open_atomic, path_below
from shards.format.index import index_path, index_rows, join_rows, write_index
from shards.format.manifest import MANIFEST, ONE_SPLIT, Manifest, Shard, save_manifest, shard_path
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

    @property
    def failures(self) -> dict[str, int]:
        """{reason: number} of the images that could not be packed.

        Images that --splits, --carve or --take do not choose are not among them.
        """
        reasons = self.manifest.left_out.items()
        return {reason: count for reason, count in reasons if reason not in UNUSED}

    @property
    def unused(self) -> dict[str, int]:
        """{reason: number} of the images that the options for splits do not choose."""
        reasons = self.manifest.left_out.items()
        return {reason: count for reason, count in reasons if reason in UNUSED}


def finalize(root: Path, plan: Plan, strict: bool = False) -> BuildResult:
    """Complete the shard set in `root`, in which all images of `plan` are packed.

    Raises UserError if no image could be packed or, with `strict`, if any was left out.
    Raises RepackError if some images must be packed again.
    """
    apply_fates(root, plan)
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
        left_out=count_left_out(plan, records),
    )
    save_manifest(manifest, root)
    return BuildResult(manifest, plan.num_sources + sum(plan.unused.values()))


def count_left_out(plan: Plan, records: Iterable[Record]) -> dict[str, int]:
    """Return how many images of the source are not in the shards: {reason: number}."""
    counts = Counter(plan.unused)
    for record in records:
        counts.update(entry.reason for entry in record.entries if entry.reason)
    return dict(sorted(counts.items()))


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
    if not plan.parameters.splits:
        return [ONE_SPLIT]
    fractions = [name for name, _ in plan.parameters.rules.fractions]
    return fractions or sorted({split for record in records for split in record.shards})


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


def apply_fates(root: Path, plan: Plan) -> None:
    """Drop duplicates and unused spare images, and move images to their final splits.

    Raises RepackError if some images must be packed again, and UserError if a split has
    too few images.
    """
    fates = find_fates(root, plan)
    _delete_stale_records(root, plan, fates)
    for block in range(plan.num_blocks):
        record = load_record(root, plan, block)
        updated = with_fates(record, fates.get(block, {}))
        if updated != record:
            (root / MANIFEST).unlink(missing_ok=True)
            save_record(_rewrite(root, plan, record, updated), root)


def _delete_stale_records(root: Path, plan: Plan, fates: Mapping[int, Mapping[int, Fate]]) -> None:
    """Delete the records of blocks in which images were dropped that are needed now.

    Raises RepackError if there are such blocks.
    """
    # An earlier run dropped an image as a duplicate of another image, or because it was
    # not needed. Other images have changed since then.
    stale = []
    for block in range(plan.num_blocks):
        dropped = {key for key, fate in fates.get(block, {}).items() if fate.reason}
        if any(
            entry.packed and entry.reason and entry.key not in dropped
            for entry in load_record(root, plan, block).entries
        ):
            stale.append(block)
    if stale:
        (root / MANIFEST).unlink(missing_ok=True)
        for block in stale:
            record_path(root, block).unlink()
        raise RepackError(
            f"{root}: {len(stale)} blocks must be packed again: run the same build again"
        )


def _rewrite(root: Path, plan: Plan, before: Record, updated: Record) -> Record:
    """Rewrite a block's shards for the images in `updated`, and return its record.

    Raises UserError if the pixels of a sample do not have the SHA-256 in its entry.
    """
    splits = sorted({*before.shards, *(entry.split for entry in updated.entries if entry.split)})
    changed = [split for split in splits if before.keys(split) != updated.keys(split)]
    shards = {split: shard for split, shard in before.shards.items() if split not in changed}
    tars = {
        split: _tar(root, plan, split, before.block) for split in changed if updated.keys(split)
    }
    final = {entry.key: entry for entry in updated.entries}
    with ExitStack() as stack:
        for tar in tars.values():
            stack.enter_context(tar)
        for key, pixels in _packed_pixels(root, plan, before):
            if not final[key].reason and final[key].split in tars:
                tars[final[key].split].add(key, pixels)
    for split in changed:
        if split in tars:
            shard = tars[split].shard
            assert shard
            shards[split] = shard
        else:
            path = path_below(root, before.shards[split].path, writing=True)
            for each in (path, path.with_suffix(".idx")):
                each.unlink(missing_ok=True)
    return replace(updated, shards=shards)


def _tar(root: Path, plan: Plan, split: str, block: int) -> TarOfSamples:
    return TarOfSamples(root, shard_path(split, block), plan.parameters.size, plan.parameters.dtype)


def _packed_pixels(root: Path, plan: Plan, record: Record) -> Iterator[tuple[int, bytes]]:
    """Yield the key and the stored pixels of each sample of a block, in key order.

    Raises UserError if the pixels of a sample do not have the SHA-256 in its entry.
    """
    size, dtype = plan.parameters.size, plan.parameters.dtype
    samples = {
        split: read_pixels(path_below(root, shard.path), shard.samples, size, dtype)
        for split, shard in record.shards.items()
    }
    for entry in record.entries:
        if entry.reason:
            continue
        pixels = next(samples[entry.split]).tobytes()
        if sha256(pixels).hexdigest() != entry.packed:
            raise UserError(
                f"{root / record.shards[entry.split].path} changed during the build: "
                "run the same build again"
            )
        yield entry.key, pixels


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
