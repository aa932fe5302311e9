"""Record files, OUT/sources/NNNNNN.jsonl: what became of each image of a block.

A block is a group of images that are packed together. Its record file is written after
its shards, and marks it as done. The first line is {"build": identity of the plan,
"block": number, "shards": {split: Shard}}. Then there is one line per image, in key
order. Packed images have "split", "packed" (SHA-256 of the stored pixels) and "crc32"
(of the stored pixels); images that were left out have "reason" and "detail".
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shards.builder.plan import SOURCES, Plan
from shards.errors import UserError
from shards.files import sha256_of, write_atomic
from shards.format.manifest import Shard

TOO_SMALL, GREY, DUPLICATE = "too small", "grey", "duplicate"


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """What became of one source image; one line of a record file.

    The image is packed if `reason` is empty, otherwise it was left out for this reason.
    The entry of a duplicate still contains the hashes of its pixels, `packed` and
    `crc32`.
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
        """Return whether the image is packed, and in this split."""
        return not self.reason and self.split == split


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a block's record file: its shards and an entry for each image.

    A block is a group of images that are packed together. The entries are in the order
    of their keys. `build` is the identity of the plan.
    """

    build: str
    block: int
    shards: dict[str, Shard]
    entries: tuple[SourceEntry, ...]

    def keys(self, split: str) -> list[int]:
        """Return the keys of the samples in this block's shard of `split`, in order."""
        return [entry.key for entry in self.entries if entry.is_in(split)]

    @property
    def left_out(self) -> list[SourceEntry]:
        """The entries of the images that were left out."""
        return [entry for entry in self.entries if entry.reason]


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
    """Read a block's record file, which lists its shards and its images.

    Raises UserError if the file is missing, is damaged or belongs to another build.
    """
    path = record_path(root, block)
    try:
        first, *rest = path.read_text().splitlines()
        head = json.loads(first)
        shards = {split: Shard(**shard) for split, shard in head.pop("shards").items()}
        record = Record(
            **head, shards=shards, entries=tuple(SourceEntry(**json.loads(line)) for line in rest)
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the same build again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): run the same build again") from None
    if record.build != plan.identity or [entry.key for entry in record.entries] != list(
        plan.keys_of(block)
    ):
        raise UserError(f"{path} belongs to another build: choose a new OUT, or delete {root}")
    return record


def load_done(root: Path, plan: Plan, block: int) -> Record | None:
    """Return the record of a block of images if all are packed correctly, else None.

    The record file must be valid, and the shards must have the sizes and SHA-256 in it.
    """
    try:
        record = load_record(root, plan, block)
    except UserError:
        return None
    return record if all(is_intact(root, shard) for shard in record.shards.values()) else None


def is_intact(root: Path, shard: Shard) -> bool:
    """Return whether a shard's files are undamaged.

    The tar must have the size and SHA-256 of `shard`, and its .idx file must exist.
    """
    path = root / shard.path
    if (
        not path.is_file()
        or not path.with_suffix(".idx").is_file()
        or path.stat().st_size != shard.bytes
    ):
        return False
    return sha256_of(path) == shard.sha256


def mark_duplicates(record: Record, firsts: dict[int, str]) -> Record:
    """Return a copy of `record` with exactly the images in `firsts` as duplicates.

    `firsts` maps the key of each duplicate to the source name of its first copy. Images
    that are duplicates in `record`, but not in `firsts`, are marked as packed again.
    """

    def mark(entry: SourceEntry) -> SourceEntry:
        if entry.key in firsts:
            return replace(entry, reason=DUPLICATE, detail=f"of {firsts[entry.key]}")
        return replace(entry, reason="", detail="") if entry.reason == DUPLICATE else entry

    return replace(record, entries=tuple(mark(entry) for entry in record.entries))
