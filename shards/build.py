"""Photos to a shard set: plan, pack the blocks that are not done yet on all cores, finish."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shards.decode import UNREADABLE
from shards.errors import UserError
from shards.files import lock
from shards.finish import LEFT_OUT, Outcome, PackAgain, finish
from shards.format import MANIFEST
from shards.pack import Report, pack_block
from shards.plan import LOCK, Block, Parameters, Plan, blocks_of, check_out, make_plan, save_plan
from shards.pool import Task, run_tasks
from shards.progress import ProgressLine
from shards.records import load_done, record_path
from shards.sources import Listing, open_sources


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where to build, with how many processes, and how strictly: nothing that changes a byte of the shards."""

    out: Path
    workers: int = 1
    strict: bool = False
    quiet: bool = False


def build(source: str, parameters: Parameters, job: Job) -> Outcome:
    """Build the shard set OUT from SOURCE, or go on where an earlier attempt stopped; raises `UserError`."""
    check_out(job.out)
    listing = open_sources(source, job.out)
    plan = make_plan(parameters, listing.sources)
    with lock(job.out / LOCK, f"another build is at work on {job.out}: wait for it, or choose a new OUT"):
        save_plan(plan, job.out)
        outcome = _pack_and_finish(list(blocks_of(plan, listing.sources)), plan, job)
    if not job.quiet:
        print(summary(outcome, listing, job.out))
    return outcome


def _pack_and_finish(blocks: Sequence[Block], plan: Plan, job: Job) -> Outcome:
    while True:  # a block packed anew has no duplicates dropped, so it comes here once at most
        pack_blocks(blocks, plan, job)
        try:
            return finish(job.out, plan, job.strict)
        except PackAgain:
            continue


def pack_blocks(blocks: Sequence[Block], plan: Plan, job: Job) -> None:
    """Pack those of `blocks` that are not done."""
    missing = _missing_blocks(blocks, plan, job)
    if not missing:
        return
    (job.out / MANIFEST).unlink(missing_ok=True)  # what it names is about to change
    total = sum(len(block.sources) for block in blocks)
    done = total - sum(len(block.sources) for block in missing)
    tasks: list[Task[None]] = [partial(_pack, job.out, plan, block) for block in missing]
    with ProgressLine("packing", total, "images", start=done, shown=not job.quiet) as progress:
        for _ in run_tasks(tasks, job.workers, progress, done):
            pass
        progress.advance_to(total)


def _missing_blocks(blocks: Sequence[Block], plan: Plan, job: Job) -> list[Block]:
    """The blocks without a record, or whose shards are not what their record says."""
    claimed = [block for block in blocks if record_path(job.out, block.number).is_file()]
    if not claimed:
        return list(blocks)
    tasks: list[Task[bool]] = [partial(_is_done, job.out, plan, job.strict, block) for block in claimed]
    total = sum(len(block.sources) for block in claimed)
    done = set()
    with ProgressLine("checking what is done", total, "images", shown=not job.quiet) as progress:
        for place, is_done in run_tasks(tasks, job.workers, progress):
            if is_done:
                done.add(claimed[place].number)
        progress.advance_to(total)
    return [block for block in blocks if block.number not in done]


def _pack(root: Path, plan: Plan, block: Block, report: Report) -> None:
    pack_block(root, plan, block, report)


def _is_done(root: Path, plan: Plan, strict: bool, block: Block, report: Report) -> bool:
    """Whether a block need not be packed; what was unreadable (--strict: left out) is tried again: it may be mended."""
    record = load_done(root, plan, block.number)
    report(len(block.sources))
    if record is None:
        return False
    return not any(strict or entry.reason == UNREADABLE for entry in record.left_out)


def summary(outcome: Outcome, listing: Listing, root: Path) -> str:
    """A few lines for the user: what was packed, what was left out and where that is listed."""
    manifest = outcome.manifest
    shards = sum(len(each) for each in manifest.splits.values())
    lines = [f"{root}: {outcome.num_packed:,} of {outcome.num_sources:,} images in {shards} shards"]
    if len(manifest.splits) > 1:
        lines += [f"  {split}: {manifest.samples(split):,}" for split in manifest.splits]
    if manifest.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest.left_out.items())
        lines.append(f"  left out: {reasons}; each is listed in {root / LEFT_OUT}")
    if listing.ignored:
        lines.append(
            f"  files that are no images by their names: {len(listing.ignored):,} (first: {listing.ignored[0]!r})"
        )
    lines.append(f"  dataset {manifest.dataset_id}")
    return "\n".join(lines)


def check_workers(workers: int) -> int:
    """`workers`, or a `UserError`."""
    if workers < 1:
        raise UserError(f"--workers {workers}: give 1 or more")
    return workers


if __name__ == "__main__":
    sys.exit("run `python -m shards build`")
