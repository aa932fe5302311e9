"""Record files, OUT/sources/NNNNNN.jsonl: what became of each image of a block.

A block is a group of images that are packed together.

first line      {"build": hash of the plan, "block": number, "shards": {split: Shard}}
further lines   one `SourceEntry` per image, in key order
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shards.builder.plan import Plan
from shards.builder.selection import NOT_CHOSEN
from shards.builder.splits import RESERVED_SPLITS, SOURCES
from shards.errors import UserError
from shards.files import (
    check_types,
    path_below,
    read_regular,
    sha256_of,
    write_atomic,
)
from shards.format.manifest import ONE_SPLIT, Shard, is_split_name, shard_path
from shards.format.shard_table import ShardTable
from shards.format.tar_layout import tar_bytes
from shards.json_files import parse_json

# Packed images have the fields "split", "packed" and "crc32"; images that were left out
# have "reason" and "detail".
_MAX_ENTRY_BYTES = 1 << 16  # two names of 4096 bytes, escaped, and a detail
TOO_SMALL, GREY, DUPLICATE = "too small", "grey", "duplicate"


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """What became of one source image; one line of a record file.

    The image is packed if `reason` is empty, otherwise it was left out for this reason.
    """

    key: int
    source: str
    width: int = 0  # upright, before any resizing
    height: int = 0
    split: str = ""
    sha256: str = ""  # of the encoded bytes
    # The entries of duplicates and of unused spare images, which are left out, still
    # have the two hashes of their pixels.
    packed: str = ""  # SHA-256 of the stored pixels, used to find duplicates
    crc32: int = 0  # of the stored pixels, for the index
    reason: str = ""
    detail: str = ""

    def is_in(self, split: str) -> bool:
        """Return whether the image was packed into this split."""
        return not self.reason and self.split == split


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a block's record file: its shards and an entry for each image."""

    build: str  # `Plan.identity` of the plan that the block was packed by
    block: int
    shards: dict[str, Shard]
    entries: tuple[SourceEntry, ...]  # in the order of their keys

    def keys(self, split: str) -> list[int]:
        """Return the sorted keys of the images that were packed into `split`."""
        return [entry.key for entry in self.entries if entry.is_in(split)]

    @property
    def left_out(self) -> list[SourceEntry]:
        """The entries of the source images that could not be packed.

        Spare images that were not needed are not among them.
        """
        return [entry for entry in self.entries if entry.reason not in ("", NOT_CHOSEN)]

    @property
    def num_unused(self) -> int:
        """Number of spare images that were not needed."""
        return sum(entry.reason == NOT_CHOSEN for entry in self.entries)


def record_path(root: Path, block: int) -> Path:
    """Return the path of a block's record file: `root`/sources/NNNNNN.jsonl."""
    return root / SOURCES / f"{block:06d}.jsonl"


def save_record(record: Record, root: Path) -> None:
    """Write a block's record file, which lists its images and marks it as done.

    Call this only after the block's shards are on disk.
    """
    shards = {split: asdict(shard) for split, shard in sorted(record.shards.items())}
    lines = [json.dumps({"build": record.build, "block": record.block, "shards": shards})]
    # json.dumps writes ASCII, with other characters of file names escaped.
    lines += [json.dumps(_without_defaults(entry)) for entry in record.entries]
    write_atomic(record_path(root, record.block), "\n".join([*lines, ""]).encode())


def _without_defaults(entry: SourceEntry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if value or name == "key"}


def load_record(root: Path, plan: Plan, block: int) -> Record:
    """Read and check a block's record file, which lists its shards and its images.

    Raises UserError if the file is missing, is damaged or belongs to another build.
    """
    path = record_path(root, block)
    keys = list(plan.keys_of(block))
    try:
        record = _parse_record(read_regular(path, _MAX_ENTRY_BYTES * (1 + len(keys))))
        if record.build == plan.identity and [entry.key for entry in record.entries] == keys:
            _check_shards(record, plan, block)
            return record
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the same build again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error}): run the same build again") from None
    raise UserError(f"{path} belongs to another build: choose a new OUT, or delete {root}")


def _parse_record(data: bytes) -> Record:
    first, *rest = data.splitlines()
    head = parse_json(first)
    shards = {split: Shard(**shard) for split, shard in head.pop("shards").items()}
    record = Record(
        **head, shards=shards, entries=tuple(SourceEntry(**parse_json(line)) for line in rest)
    )
    for each in (record, *record.entries):
        check_types(each)
    return record


def _check_shards(record: Record, plan: Plan, block: int) -> None:
    """Check that a build can have written shards with these paths, splits and sizes.

    Raises ValueError, TypeError or OverflowError if not.
    """
    # The record may come from an untrusted source.
    ShardTable(record.shards.values())  # checks the types of its fields
    packed = Counter(entry.split for entry in record.entries if not entry.reason)
    if record.block != block or packed != {
        split: shard.samples for split, shard in record.shards.items()
    }:
        raise ValueError("its shards do not have the samples of its entries")
    for split, shard in record.shards.items():
        _check_split(split, plan)
        if shard.path != shard_path(split, block):
            raise ValueError(f"shard path {shard.path!r}, expected {shard_path(split, block)!r}")
        if shard.bytes != tar_bytes(shard.samples, plan.parameters.size, plan.parameters.dtype):
            raise ValueError(f"{shard.path} has {shard.bytes} bytes for {shard.samples} samples")


def _check_split(split: str, plan: Plan) -> None:
    """Raise ValueError unless a build of this plan can have written this split."""
    parameters = plan.parameters
    if not parameters.splits:
        valid = split == ONE_SPLIT
    elif fractions := parameters.rules.fractions:
        valid = split in dict(fractions)
    else:
        valid = is_split_name(split) and split not in RESERVED_SPLITS
    if not valid:
        raise ValueError(f"invalid split name {split!r}")


def load_done(root: Path, plan: Plan, block: int) -> Record | None:
    """Return a block's record if its shards are complete and undamaged, else None."""
    try:
        record = load_record(root, plan, block)
    except UserError:
        return None
    return record if all(is_intact(root, shard) for shard in record.shards.values()) else None


def is_intact(root: Path, shard: Shard) -> bool:
    """Return whether a shard's tar is undamaged and its .idx file exists."""
    path = path_below(root, shard.path)
    if (
        not path.is_file()
        or not path.with_suffix(".idx").is_file()
        or path.stat().st_size != shard.bytes
    ):
        return False
    return sha256_of(path) == shard.sha256


@dataclass(frozen=True)
class Fate:
    """What finally becomes of an image that was decoded: its split, or why left out."""

    split: str
    reason: str = ""
    detail: str = ""


def with_fates(record: Record, fates: Mapping[int, Fate]) -> Record:
    """Return a copy of `record` in which images have their final split or reason.

    `fates` maps the keys of images to their fates; a decoded image that is not in it
    stays in its split.
    """

    def update(entry: SourceEntry) -> SourceEntry:
        if entry.packed:
            fate = fates.get(entry.key, Fate(entry.split))
            return replace(entry, split=fate.split, reason=fate.reason, detail=fate.detail)
        return entry

    return replace(record, entries=tuple(update(entry) for entry in record.entries))
