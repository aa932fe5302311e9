"""What became of each source image: OUT/sources/NNNNNN.jsonl, one record a block, the proof that the block is done.

First line: {"build", "block", "shards": {split: Shard}}. Then one line a source, in key order: packed images carry
"split", "packed" (SHA-256 of the pixels as stored) and "crc32" (of the same), the others "reason" and "detail".
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
class Entry:
    """One source image: packed if `reason` is empty. `packed` and `crc32` stay with duplicates."""

    key: int
    source: str
    width: int = 0  # upright, before any resizing
    height: int = 0
    split: str = ""
    sha256: str = ""  # of the encoded bytes
    packed: str = ""  # SHA-256 of the stored pixels, by which duplicates are found
    crc32: int = 0  # of the same, for the index
    reason: str = ""
    detail: str = ""

    def is_in(self, split: str) -> bool:
        return not self.reason and self.split == split


@dataclass(frozen=True, kw_only=True)
class Record:
    """All entries of a block, in key order, and the shards they went to."""

    build: str
    block: int
    shards: dict[str, Shard]
    entries: tuple[Entry, ...]

    def keys(self, split: str) -> list[int]:
        """The keys of the samples of this block's shard of `split`, in order."""
        return [entry.key for entry in self.entries if entry.is_in(split)]

    @property
    def left_out(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.reason]


def record_path(root: Path, block: int) -> Path:
    """OUT/sources/NNNNNN.jsonl"""
    return root / SOURCES / f"{block:06d}.jsonl"


def save_record(record: Record, root: Path) -> None:
    """Write a block's record: its last act, after its shards are safe on disk."""
    shards = {split: asdict(shard) for split, shard in sorted(record.shards.items())}
    lines = [json.dumps({"build": record.build, "block": record.block, "shards": shards})]
    lines += [
        json.dumps(_without_blanks(entry)) for entry in record.entries
    ]  # ASCII: odd file names are escaped
    write_atomic(record_path(root, record.block), "\n".join([*lines, ""]).encode())


def _without_blanks(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if value or name == "key"}


def load_record(root: Path, plan: Plan, block: int) -> Record:
    """Read a block's record; raises `UserError` if it is missing, damaged or of another build."""
    path = record_path(root, block)
    try:
        first, *rest = path.read_text().splitlines()
        head = json.loads(first)
        shards = {split: Shard(**shard) for split, shard in head.pop("shards").items()}
        record = Record(
            **head, shards=shards, entries=tuple(Entry(**json.loads(line)) for line in rest)
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the same build again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): run the same build again") from None
    if record.build != plan.identity or [entry.key for entry in record.entries] != list(
        plan.keys_of(block)
    ):
        raise UserError(f"{path} is of another build: choose a new OUT, or delete {root}")
    return record


def load_done(root: Path, plan: Plan, block: int) -> Record | None:
    """A block's record if the block is done: the record is whole and its shards have its sizes and SHA-256."""
    try:
        record = load_record(root, plan, block)
    except UserError:
        return None
    whole = all(is_whole(root, shard) for shard in record.shards.values())
    return record if whole else None


def is_whole(root: Path, shard: Shard) -> bool:
    """Whether a shard and its index text are there, the shard with the right size and SHA-256."""
    path = root / shard.path
    if (
        not path.is_file()
        or not path.with_suffix(".idx").is_file()
        or path.stat().st_size != shard.bytes
    ):
        return False
    return sha256_of(path) == shard.sha256


def mark_duplicates(record: Record, firsts: dict[int, str]) -> Record:
    """The record with exactly the entries of `firsts` (key: name of the first of its kind) left out as duplicates."""

    def mark(entry: Entry) -> Entry:
        if entry.key in firsts:
            return replace(entry, reason=DUPLICATE, detail=f"of {firsts[entry.key]}")
        return replace(entry, reason="", detail="") if entry.reason == DUPLICATE else entry

    return replace(record, entries=tuple(mark(entry) for entry in record.entries))
