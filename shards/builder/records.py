"""Records of the source images: OUT/sources/NNNNNN.jsonl, one file per block.

A block is done when its record is written. The first line is {"build", "block",
"shards": {split: Shard}}. Then there is one line per source, in key order: packed
images have "split", "packed" (SHA-256 of the stored pixels) and "crc32" (of the stored
pixels), images that were left out have "reason" and "detail".
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shards.builder.plan import BY_SOURCE, RESERVED_SPLITS, SOURCES, Plan, parse_splits
from shards.errors import UserError
from shards.files import (
    check_types,
    parse_json,
    path_below,
    read_regular,
    sha256_of,
    write_atomic,
)
from shards.format.manifest import ONE_SPLIT, Shard, is_split_name, shard_path
from shards.format.shard_table import ShardTable
from shards.format.tar_layout import tar_bytes

_MAX_ENTRY_BYTES = 1 << 16  # two names of 4096 bytes, escaped, and a detail
TOO_SMALL, GREY, DUPLICATE = "too small", "grey", "duplicate"


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One source image, packed if `reason` is empty.

    Duplicates keep `packed` and `crc32`.
    """

    key: int
    source: str
    width: int = 0  # upright, before any resizing
    height: int = 0
    split: str = ""
    sha256: str = ""  # of the encoded bytes
    packed: str = ""  # SHA-256 of the stored pixels, used to find duplicates
    crc32: int = 0  # of the stored pixels, for the index
    reason: str = ""
    detail: str = ""

    def is_in(self, split: str) -> bool:
        """Return whether the image is packed in `split`."""
        return not self.reason and self.split == split


@dataclass(frozen=True, kw_only=True)
class Record:
    """All entries of a block, in key order, and the shards with their samples."""

    build: str
    block: int
    shards: dict[str, Shard]
    entries: tuple[SourceEntry, ...]

    def keys(self, split: str) -> list[int]:
        """Return the keys of the samples in this block's shard of `split`, in order."""
        return [entry.key for entry in self.entries if entry.is_in(split)]

    @property
    def left_out(self) -> list[SourceEntry]:
        """The entries of images that were left out."""
        return [entry for entry in self.entries if entry.reason]


def record_path(root: Path, block: int) -> Path:
    """Return OUT/sources/NNNNNN.jsonl."""
    return root / SOURCES / f"{block:06d}.jsonl"


def save_record(record: Record, root: Path) -> None:
    """Write the record of a block, the last step after its shards are on disk."""
    shards = {split: asdict(shard) for split, shard in sorted(record.shards.items())}
    lines = [json.dumps({"build": record.build, "block": record.block, "shards": shards})]
    # json.dumps writes ASCII, with other characters of file names escaped.
    lines += [json.dumps(_without_defaults(entry)) for entry in record.entries]
    write_atomic(record_path(root, record.block), "\n".join([*lines, ""]).encode())


def _without_defaults(entry: SourceEntry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if value or name == "key"}


def load_record(root: Path, plan: Plan, block: int) -> Record:
    """Read and check the record of a block; it may come from an untrusted source.

    Its shards have the paths, splits and sizes that a build gives them. Raises
    UserError if it is missing, damaged or belongs to another build.
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
    """Raise ValueError, TypeError or OverflowError unless a build may write such."""
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
    splits = plan.parameters.splits
    if splits == BY_SOURCE:
        if not is_split_name(split) or split in RESERVED_SPLITS:
            raise ValueError(f"invalid split name {split!r}")
    elif split not in ([name for name, _ in parse_splits(splits)] or [ONE_SPLIT]):
        raise ValueError(f"invalid split name {split!r}")


def load_done(root: Path, plan: Plan, block: int) -> Record | None:
    """Return a block's record if the block is done, else None.

    It is done if its record is valid and its shards have the recorded sizes and
    SHA-256.
    """
    try:
        record = load_record(root, plan, block)
    except UserError:
        return None
    return record if all(is_intact(root, shard) for shard in record.shards.values()) else None


def is_intact(root: Path, shard: Shard) -> bool:
    """Return whether a shard has its size and SHA-256 and its .idx file exists."""
    path = path_below(root, shard.path)
    if (
        not path.is_file()
        or not path.with_suffix(".idx").is_file()
        or path.stat().st_size != shard.bytes
    ):
        return False
    return sha256_of(path) == shard.sha256


def mark_duplicates(record: Record, firsts: dict[int, str]) -> Record:
    """Return the record with exactly the entries of `firsts` left out as duplicates.

    `firsts` maps the key of a duplicate to the name of the first copy.
    """

    def mark(entry: SourceEntry) -> SourceEntry:
        if entry.key in firsts:
            return replace(entry, reason=DUPLICATE, detail=f"of {firsts[entry.key]}")
        return replace(entry, reason="", detail="") if entry.reason == DUPLICATE else entry

    return replace(record, entries=tuple(mark(entry) for entry in record.entries))
