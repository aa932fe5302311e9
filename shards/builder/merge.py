"""From parts to a shard set: bring the blocks that many machines packed together, then finish as one build does."""

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
from shards.builder.parts import Part, counts_of_parts
from shards.builder.plan import LOCK, NO_LINKS, Plan, check_plan, load_plan, save_plan
from shards.builder.records import Record, load_done, load_record, record_path, save_record
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import fsync_folder, lock, sha256_of, write_atomic
from shards.format.manifest import Shard, index_text
from shards.format.tar_layout import content_offsets
from shards.progress import ProgressLine

_MOST_NAMED = 20  # runs of missing blocks that a message lists


def merge(folders: Sequence[Path], options: BuildOptions) -> BuildResult:
    """Make OUT a shard set from the parts built in it and in `folders`; the bytes are those of one plain build.

    Raises `UserError` that lists the missing blocks, or if a part is at work, of another build, or broken.
    """
    others = _others(options.out, folders)
    plan = load_plan(next(iter(others), options.out))
    for folder in others:
        check_plan(plan, folder, "merge parts of one build")
    with ExitStack() as held:
        for folder in (options.out, *others):
            message = f"a build, or a part of one, is at work on {folder}: wait for it"
            held.enter_context(lock(folder / LOCK, message))
        save_plan(plan, options.out)
        missing = _gather(others, plan, options)
        if missing:
            raise UserError(_say_missing(options.out, others, plan, missing))
        outcome = finalize(options.out, plan, options.strict)
    if not options.quiet:
        print(summary(outcome, options.out))
    return outcome


def _others(out: Path, folders: Sequence[Path]) -> list[Path]:
    """The folders, each once, without OUT itself."""
    found = {folder.resolve(): folder for folder in folders}
    found.pop(out.resolve(), None)
    return list(found.values())


def _gather(folders: Sequence[Path], plan: Plan, options: BuildOptions) -> list[int]:
    """Bring to OUT the blocks that are not done there; returns those that are nowhere."""
    tasks: list[Task[bool]] = [
        partial(_find, options.out, folders, plan, block) for block in range(plan.num_blocks)
    ]
    missing = []
    with ProgressLine("gathering", plan.num_sources, "images", shown=not options.quiet) as progress:
        for block, found in run_tasks(tasks, options.workers, progress):
            if not found:
                missing.append(block)
        progress.advance_to(plan.num_sources)
    return sorted(missing)


def _find(root: Path, folders: Sequence[Path], plan: Plan, block: int, report: Report) -> bool:
    found = load_done(root, plan, block) is not None or any(
        bring(root, each, plan, block) for each in folders
    )
    report(len(plan.keys_of(block)))
    return found


def bring(root: Path, folder: Path, plan: Plan, block: int) -> bool:
    """Bring a block from `folder` to `root`, its record last; False if it is not there, `UserError` if it is broken."""
    if not record_path(folder, block).is_file():
        return False
    record = load_record(folder, plan, block)
    for split, shard in record.shards.items():
        _bring_tar(folder, root, shard)
        write_atomic(
            (root / shard.path).with_suffix(".idx"), _index_text(plan, record, split).encode()
        )
    save_record(record, root)
    return True


def _index_text(plan: Plan, record: Record, split: str) -> str:
    keys, size, dtype = np.array(record.keys(split)), plan.parameters.size, plan.parameters.dtype
    return index_text(keys, content_offsets(len(keys), size, dtype), size, dtype)


def _bring_tar(folder: Path, root: Path, shard: Shard) -> None:
    """Link, or else copy, a tar under a temporary name; it gets its own only if it is what the record says."""
    source, target = folder / shard.path, root / shard.path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _link_or_copy(source, temporary)
        if temporary.stat().st_size != shard.bytes or sha256_of(temporary) != shard.sha256:
            raise UserError(
                f"{source} is not what its record says: build that part again in {folder}"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(
            missing_ok=True
        )  # also after a rename, which does nothing between two names of one file
    fsync_folder(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name for the file, which nobody will ever write to in place; a copy where that cannot be."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with open(source, "rb") as old, open(target, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())


def _say_missing(root: Path, folders: Sequence[Path], plan: Plan, missing: Sequence[int]) -> str:
    what = (
        f"{root}: {len(missing)} of {plan.num_blocks} blocks are not packed yet: {_runs(missing)}"
    )
    counts = counts_of_parts((root, *folders))
    if len(counts) == 1:
        (count,) = counts
        parts = (Part(number, count) for number in range(1, count + 1))
        late = [
            str(part) for part in parts if not set(missing).isdisjoint(part.blocks(plan.num_blocks))
        ]
        what += f" (--part {', '.join(late)})"
    return f"{what}: build them, then merge again"


def _runs(numbers: Sequence[int]) -> str:
    """`3, 7-9` for 3, 7, 8, 9."""
    groups = [
        list(group) for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    runs = [f"{g[0][1]}-{g[-1][1]}" if len(g) > 1 else str(g[0][1]) for g in groups]
    return ", ".join(runs[:_MOST_NAMED]) + (", ..." if len(runs) > _MOST_NAMED else "")
