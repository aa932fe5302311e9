"""Decide what finally becomes of the packed images: kept, moved or dropped.

This needs only the record files of a build, so it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from shards.builder.plan import Plan
from shards.builder.records import DUPLICATE, Fate, SourceEntry, load_record
from shards.builder.selection import NOT_CHOSEN, fill, rank, total
from shards.errors import UserError


def find_fates(root: Path, plan: Plan) -> dict[int, dict[int, Fate]]:
    """Return {block: {key: fate}} of duplicates, unused spare images and moved images.

    Raises UserError if a split has too few images.
    """
    duplicates = _find_duplicates(root, plan)
    fates: dict[int, dict[int, Fate]] = {}
    for key, fate in [*duplicates.items(), *_fill_pools(root, plan, duplicates)]:
        fates.setdefault(key // plan.block_size, {})[key] = fate
    return fates


def _decoded(root: Path, plan: Plan) -> Iterator[SourceEntry]:
    """Yield the entries of all images that could be packed, in key order."""
    for block in range(plan.num_blocks):
        for entry in load_record(root, plan, block).entries:
            if entry.packed:
                yield entry


def _find_duplicates(root: Path, plan: Plan) -> dict[int, Fate]:
    """Return the fates of the images whose pixels are equal to an earlier image's."""
    keys, digests = [], []
    for entry in _decoded(root, plan):
        keys.append(entry.key)
        digests.append(entry.packed[:32])  # pixels, because equal files have equal pixels too
    if not keys:
        return {}
    _, firsts, groups = np.unique(np.array(digests, "S32"), return_index=True, return_inverse=True)
    # Keys ascend, so the first index with a digest is the one with the smallest key.
    first_keys = {
        keys[later]: keys[firsts[groups[later]]]
        for later in np.flatnonzero(firsts[groups] != np.arange(len(keys)))
    }
    entries = _entries(root, plan, {*first_keys, *first_keys.values()})
    return {
        key: Fate(entries[key].split, DUPLICATE, f"of {entries[first].source}")
        for key, first in first_keys.items()
    }


def _entries(root: Path, plan: Plan, keys: set[int]) -> dict[int, SourceEntry]:
    """Return the record entries of the images with these keys."""
    found = {}
    for block in sorted({key // plan.block_size for key in keys}):
        for entry in load_record(root, plan, block).entries:
            if entry.key in keys:
                found[entry.key] = entry
    return found


def _fill_pools(
    root: Path, plan: Plan, duplicates: Mapping[int, Fate]
) -> Iterator[tuple[int, Fate]]:
    """Yield the keys and fates of images that are dropped or moved to another split.

    Raises UserError if a pool of images is too small for the counts of its splits.
    """
    for counts in plan.quotas.values():
        keys, ranks, splits = [], [], []
        for entry in _decoded(root, plan):
            if entry.split in counts and entry.key not in duplicates:
                keys.append(entry.key)
                ranks.append(rank(plan.parameters.seed, entry.source))
                splits.append(entry.split)
        _check_size(root, counts, len(keys))
        names = [*counts, ""]
        for key, split, number in zip(
            keys, splits, fill(np.array(ranks, np.uint64), counts).tolist(), strict=True
        ):
            if not names[number]:
                yield key, Fate(split, NOT_CHOSEN)
            elif names[number] != split:
                yield key, Fate(names[number])


def _check_size(root: Path, counts: Mapping[str, int], size: int) -> None:
    if size < total(counts):
        raise UserError(
            f"{root}: only {size:,} images could be packed for {', '.join(counts)}, which need "
            f"{total(counts):,}: build into a new OUT with smaller counts, or with a larger "
            "--spare if the source has more images"
        )
