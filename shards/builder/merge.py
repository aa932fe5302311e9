"""Merge the parts of a build (`--part I/N`) into one shard set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

from shards.builder.build import BuildOptions, summary
from shards.builder.finalize import BuildResult, finalize
from shards.builder.integrity import recorded_index, tar_damage
from shards.builder.pack import Report
from shards.builder.parts import Part, part_counts
from shards.builder.plan import LINK_UNSUPPORTED, LOCK, Plan, check_plan, load_plan, save_plan
from shards.builder.records import load_done, load_record, record_path, save_record
from shards.builder.worker_pool import Result, Task, run_tasks
from shards.errors import UserError
from shards.files import (
    fsync_file,
    fsync_folder,
    open_regular,
    path_below,
    sha256_of,
    write_atomic,
)
from shards.format.manifest import Shard
from shards.locks import lock
from shards.progress import ProgressLine

_MAX_LISTED = 20  # ranges of missing blocks in an error message


def merge(folders: Sequence[Path], options: BuildOptions) -> BuildResult:
    """Combine the parts of a build in `options.out` and `folders` into one shard set.

    The shard set is written to `options.out`. Raises UserError if a part is running, is
    damaged, belongs to another build or is missing.
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
    """Copy missing blocks to `options.out`; return those that no folder has."""
    # A part may come from an untrusted source: its record files are checked when they
    # are loaded, and every byte of its tars before anything is copied.
    checks: list[Task[Path | None]] = [
        partial(_find_block, options.out, folders, plan, block) for block in range(plan.num_blocks)
    ]
    found = _run("checking parts", checks, plan, options)
    copies: list[Task[None]] = [
        partial(_copy_block, options.out, folder, plan, block)
        for block, folder in found.items()
        if folder not in (None, options.out)
    ]
    if copies:
        _run("gathering", copies, plan, options)
    return [block for block, folder in found.items() if folder is None]


def _run(
    label: str, tasks: Sequence[Task[Result]], plan: Plan, options: BuildOptions
) -> dict[int, Result]:
    """Run the tasks in worker processes and return {index of the task: result}."""
    with ProgressLine(label, plan.num_sources, "images", shown=not options.quiet) as progress:
        results = dict(run_tasks(tasks, options.workers, progress))
        progress.advance_to(plan.num_sources)
    return dict(sorted(results.items()))


def _find_block(
    root: Path, folders: Sequence[Path], plan: Plan, block: int, report: Report
) -> Path | None:
    """Return the first of `root` and `folders` that contains a block, or None.

    Raises UserError if the block that was found in `folders` is damaged.
    """
    if load_done(root, plan, block) is not None:
        found: Path | None = root
    else:
        found = next((each for each in folders if record_path(each, block).exists()), None)
        if found is not None:
            _check_block(found, plan, block)
    report(len(plan.keys_of(block)))
    return found


def _check_block(folder: Path, plan: Plan, block: int) -> None:
    """Raise UserError unless every byte of a block's tars matches its record file."""
    record = load_record(folder, plan, block)
    for split in record.shards:
        if damage := tar_damage(folder, plan, record, split):
            raise UserError(f"{damage}: build this part again in {folder}")


def _copy_block(root: Path, folder: Path, plan: Plan, block: int, report: Report) -> None:
    """Copy a block of images, which has been checked, from `folder` to `root`."""
    record = load_record(folder, plan, block)
    for split, shard in record.shards.items():
        target = path_below(root, shard.path, writing=True)
        _copy_tar(path_below(folder, shard.path), target, shard)
        write_atomic(target.with_suffix(".idx"), recorded_index(plan, record, split).encode())
    save_record(record, root)  # after the shards, because it marks the block as done
    report(len(plan.keys_of(block)))


def _copy_tar(source: Path, target: Path, shard: Shard) -> None:
    """Link or copy a tar to a temporary name, and then rename it to `target`.

    Raises UserError if a copy does not have the SHA-256 of `shard`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _link_or_copy(source, temporary)
        # A link is the file that was checked, a copy is not.
        if not temporary.samefile(source) and sha256_of(temporary) != shard.sha256:
            raise UserError(f"{source} changed while it was copied: run the same command again")
        temporary.replace(target)
    finally:
        # Also after the rename, which does nothing if both names are links to one file.
        temporary.unlink(missing_ok=True)
    fsync_folder(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    """Create `target` as a hard link to `source`, or as a copy where links fail."""
    try:
        # A link is safe because tars are never modified in place.
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno not in LINK_UNSUPPORTED:
            raise
        with open_regular(source) as old, open(target, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            fsync_file(new, target)


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
    """Format ascending numbers as at most 20 ranges: `3, 7-9` for [3, 7, 8, 9]."""
    groups = [
        list(group) for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    ranges = [f"{g[0][1]}-{g[-1][1]}" if len(g) > 1 else str(g[0][1]) for g in groups]
    return ", ".join(ranges[:_MAX_LISTED]) + (", ..." if len(ranges) > _MAX_LISTED else "")
