"""Check the tars of a block of images against the block's record file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from shards.builder.plan import Plan
from shards.builder.records import Record, SourceEntry
from shards.files import open_regular, path_below, sha256_of
from shards.format.manifest import (
    MEMBER,
    TAR_BLOCK,
    Shard,
    index_text,
    key_name,
    member_bytes,
    member_header,
)
from shards.format.tar_layout import content_offsets, member_stride, tar_header


def tar_damage(root: Path, plan: Plan, record: Record, split: str) -> str:
    """Return a message if a block's tar for one split is damaged, else "".

    `record` is the content of the block's record file.
    """
    shard = record.shards[split]
    path = path_below(root, shard.path)
    if not path.is_file():
        return f"{path} is missing"
    entries = [entry for entry in record.entries if entry.is_in(split)]
    intact = path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    damage = first_damage(path, entries, shard, plan.parameters.size, plan.parameters.dtype)
    if damage or not intact:
        return f"{path} is damaged: {damage or 'its SHA-256 is not the recorded one'}"
    return ""


def recorded_index(plan: Plan, record: Record, split: str) -> str:
    """Return the correct content of the .idx file next to a block's tar for one split.

    `record` is the content of the block's record file.
    """
    keys, size, dtype = np.array(record.keys(split)), plan.parameters.size, plan.parameters.dtype
    return index_text(keys, content_offsets(len(keys), size, dtype), size, dtype)


def first_damage(
    path: Path, entries: Sequence[SourceEntry], shard: Shard, size: int, dtype: str
) -> str:
    """Return a message about the first damage in a tar, "" if there is none.

    `entries` are the record entries of the samples in the tar, in order.
    """
    stride = member_stride(size, dtype)
    with open_regular(path) as stream:
        length = os.fstat(stream.fileno()).st_size
        if not length:
            return "it is empty"
        for index, entry in enumerate(entries):
            member = stream.read(stride)
            if damage := _member_damage(member, index * stride, entry, size, dtype):
                return f"member {key_name(entry.key)}.{MEMBER} ({entry.source!r}), {damage}"
        if length != shard.bytes:
            return f"it has {length} bytes instead of {shard.bytes}"
        if any(stream.read()):
            end = len(entries) * stride
            return f"after the last member, bytes {end}-{length - 1}: not zero"
    return ""


def _member_damage(member: bytes, start: int, entry: SourceEntry, size: int, dtype: str) -> str:
    """Return a message about the first damage in a member, "" if there is none.

    `member` are the bytes of the tar from its byte `start` on.
    """
    header, npy = tar_header(entry.key, size, dtype), member_header(size, dtype)
    body, end = TAR_BLOCK + len(npy), TAR_BLOCK + member_bytes(size, dtype)
    after = member_stride(size, dtype)
    if len(member) < after:
        return f"bytes {start}-{start + after - 1}: the file ends at byte {start + len(member)}"
    if member[:TAR_BLOCK] != header:
        return f"bytes {start}-{start + TAR_BLOCK - 1}: wrong tar header"
    if member[TAR_BLOCK:body] != npy:
        return f"bytes {start + TAR_BLOCK}-{start + body - 1}: wrong npy header"
    # So a tar with wrong pixels is found even if the SHA-256 recorded for the whole tar
    # matches.
    pixels = member[body:end]
    if sha256(pixels).hexdigest() != entry.packed:
        return f"bytes {start + body}-{start + end - 1}: pixels are not those recorded"
    if zlib.crc32(pixels) != entry.crc32:
        return f"bytes {start + body}-{start + end - 1}: pixels do not have the recorded CRC-32"
    if any(member[end:]):
        return f"bytes {start + end}-{start + after - 1}: padding is not zero"
    return ""
