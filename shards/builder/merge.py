"""Merge the parts of a build (`--part I/N`) into one shard set.

The blocks (groups of images packed together) of all parts are collected in the output
folder, which is then finalized.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from shards.builder.build import BuildOptions, summary
from shards.builder.finalize import BuildResult, finalize
from shards.builder.pack import Report
from shards.builder.parts import Part, part_counts
from shards.builder.plan import LINK_UNSUPPORTED, LOCK, Plan, check_plan, load_plan, save_plan
from shards.builder.records import Record, load_done, load_record, record_path, save_record
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import fsync_folder, lock, sha256_of, write_atomic
from shards.format.manifest import Shard, index_text
from shards.format.tar_layout import content_offsets
from shards.progress import ProgressLine

_MAX_LISTED = 20  # ranges of missing blocks in an error message


def merge(folders: Sequence[Path], options: BuildOptions) -> BuildResult:
    """Combine the parts of a build in `options.out` and `folders` into one shard set.

    The shard set is written to `options.out`, with the same bytes as by a build without
    parts. Raises UserError if blocks (groups of images) are missing, which the message
    lists, or if a part is running, is damaged or belongs to another build.
    """
    others = _others(options.out, folders)
    plan = load_plan(next(iter(others), options.out))
    for folder in others:
        check_plan(plan, folder, "merge only parts of the same build")
    with ExitStack() as locks:
        for folder in (options.out, *others):
            message = f"a build, or a part of one, is running in {folder}: wait until it ends"
            locks.enter_context(lock(folder / LOCK, message))
        save_plan(plan, options.out)
        missing = _gather(others, plan, options)
        if missing:
            raise UserError(_describe_missing(options.out, others, plan, missing))
        result = finalize(options.out, plan, options.strict)
    if not options.quiet:
        print(summary(result, options.out))
    return result


def _others(out: Path, folders: Sequence[Path]) -> list[Path]:
    """Return `folders` without repetitions and without the folder `out`."""
    by_path = {folder.resolve(): folder for folder in folders}
    by_path.pop(out.resolve(), None)
    return list(by_path.values())


def _gather(folders: Sequence[Path], plan: Plan, options: BuildOptions) -> list[int]:
    """Copy the blocks that are missing in `options.out` from `folders`.

    A block is a group of images that are packed together. Returns the numbers of the
    blocks that none of the folders has.
    """
    tasks: list[Task[bool]] = [
        partial(_gather_block, options.out, folders, plan, block)
        for block in range(plan.num_blocks)
    ]
    missing = []
    with ProgressLine("gathering", plan.num_sources, "images", shown=not options.quiet) as progress:
        for block, found in run_tasks(tasks, options.workers, progress):
            if not found:
                missing.append(block)
        progress.advance_to(plan.num_sources)
    return sorted(missing)


def _gather_block(
    root: Path, folders: Sequence[Path], plan: Plan, block: int, report: Report
) -> bool:
    found = load_done(root, plan, block) is not None or any(
        copy_block(root, each, plan, block) for each in folders
    )
    report(len(plan.keys_of(block)))
    return found


def copy_block(root: Path, folder: Path, plan: Plan, block: int) -> bool:
    """Copy a block from `folder` to `root`: first its shards, then its record file.

    A block is a group of images that are packed together. Returns False if `folder` has
    no record file of the block. Raises UserError if the block in `folder` is damaged.
    """
    if not record_path(folder, block).is_file():
        return False
    record = load_record(folder, plan, block)
    for split, shard in record.shards.items():
        _copy_tar(folder, root, shard)
        write_atomic(
            (root / shard.path).with_suffix(".idx"), _index_text(plan, record, split).encode()
        )
    save_record(record, root)
    return True


def _index_text(plan: Plan, record: Record, split: str) -> str:
    keys, size, dtype = np.array(record.keys(split)), plan.parameters.size, plan.parameters.dtype
    return index_text(keys, content_offsets(len(keys), size, dtype), size, dtype)


def _copy_tar(folder: Path, root: Path, shard: Shard) -> None:
    """Hard-link or copy a shard's tar from `folder` to `root`, and verify it.

    The tar gets its final name only after the verification. Raises UserError if its
    size or SHA-256 is not the one in `shard`.
    """
    source, target = folder / shard.path, root / shard.path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _link_or_copy(source, temporary)
        if temporary.stat().st_size != shard.bytes or sha256_of(temporary) != shard.sha256:
            raise UserError(
                f"{source} does not match its record: build this part again in {folder}"
            )
        temporary.replace(target)
    finally:
        # Also after the rename, which does nothing if both names are links to one file.
        temporary.unlink(missing_ok=True)
    fsync_folder(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    """Create `target` as a hard link to `source`, or as a copy where links fail.

    A link is safe because tars are never modified in place.
    """
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno not in LINK_UNSUPPORTED:
            raise
        with open(source, "rb") as old, open(target, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())


def _describe_missing(
    root: Path, folders: Sequence[Path], plan: Plan, missing: Sequence[int]
) -> str:
    text = (
        f"{root}: {len(missing)} of {plan.num_blocks} blocks are not packed yet: "
        f"{_format_ranges(missing)}"
    )
    counts = part_counts((root, *folders))
    if len(counts) == 1:
        (count,) = counts
        parts = (Part(number, count) for number in range(1, count + 1))
        incomplete = [
            str(part) for part in parts if not set(missing).isdisjoint(part.blocks(plan.num_blocks))
        ]
        text += f" (--part {', '.join(incomplete)})"
    return f"{text}: build them, then merge again"


def _format_ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers as ranges: `3, 7-9` for [3, 7, 8, 9].

    From the 21st range on, the text is cut off with `...`.
    """
    groups = [
        list(group) for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    ranges = [f"{g[0][1]}-{g[-1][1]}" if len(g) > 1 else str(g[0][1]) for g in groups]
    return ", ".join(ranges[:_MAX_LISTED]) + (", ..." if len(ranges) > _MAX_LISTED else "")
