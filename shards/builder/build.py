"""Photos to a shard set: plan, pack the blocks that are not done yet on all cores, finish; or pack one part alone."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shards.builder.finalize import LEFT_OUT, BuildResult, RepackError, finalize, say_left_out
from shards.builder.pack import Report, pack_block
from shards.builder.parts import Part, hold_part
from shards.builder.plan import (
    LOCK,
    Block,
    Parameters,
    Plan,
    blocks_of,
    check_out,
    make_plan,
    save_plan,
)
from shards.builder.records import Entry, load_done, load_record, record_path
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.files import lock
from shards.format.manifest import MANIFEST
from shards.progress import ProgressLine
from shards.sources.decode import UNREADABLE
from shards.sources.listing import Listing, open_sources


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Where to build, with how many processes, and how strictly: nothing that changes a byte of the shards."""

    out: Path
    workers: int = 1
    strict: bool = False
    quiet: bool = False


def build(source: str, parameters: Parameters, options: BuildOptions) -> BuildResult:
    """Build the shard set OUT from SOURCE, or go on where an earlier attempt stopped; raises `UserError`."""
    listing, plan = _settle(source, parameters, options.out)
    with lock(
        options.out / LOCK,
        f"another build is at work on {options.out}: wait for it, or choose a new OUT",
    ):
        save_plan(plan, options.out)
        outcome = _pack_and_finish(list(blocks_of(plan, listing.sources)), plan, options)
    if not options.quiet:
        print(summary(outcome, options.out, listing.ignored))
    return outcome


def _settle(source: str, parameters: Parameters, out: Path) -> tuple[Listing, Plan]:
    check_out(out)
    listing = open_sources(source, out)
    return listing, make_plan(parameters, listing.sources)


@dataclass(frozen=True)
class PartResult:
    """What a part's blocks amount to before duplicates are looked for, which takes all parts."""

    part: Part
    num_blocks: int
    num_sources: int
    left_out: list[Entry]


def build_part(
    source: str, parameters: Parameters, part: Part, options: BuildOptions
) -> PartResult:
    """Pack one part's blocks into OUT, beside any number of other parts; writes no manifest, raises `UserError`."""
    listing, plan = _settle(source, parameters, options.out)
    wanted = part.blocks(plan.num_blocks)
    with hold_part(options.out, part):
        save_plan(plan, options.out)
        blocks = list(blocks_of(plan, listing.sources))[wanted.start : wanted.stop]
        pack_blocks(blocks, plan, options)
        left_out = [
            entry for number in wanted for entry in load_record(options.out, plan, number).left_out
        ]
    outcome = PartResult(part, len(blocks), sum(len(block.sources) for block in blocks), left_out)
    if options.strict and left_out:
        raise UserError(
            f"{say_left_out(left_out, outcome.num_sources)}; mend them or drop --strict"
        )
    if not options.quiet:
        print(summary_of_part(outcome, plan, options.out))
    return outcome


def _pack_and_finish(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> BuildResult:
    while True:  # a block packed anew has no duplicates dropped, so it comes here once at most
        pack_blocks(blocks, plan, options)
        try:
            return finalize(options.out, plan, options.strict)
        except RepackError:
            continue


def pack_blocks(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> None:
    """Pack those of `blocks` that are not done."""
    missing = _missing_blocks(blocks, plan, options)
    if not missing:
        return
    (options.out / MANIFEST).unlink(missing_ok=True)  # what it names is about to change
    total = sum(len(block.sources) for block in blocks)
    done = total - sum(len(block.sources) for block in missing)
    tasks: list[Task[None]] = [partial(_pack, options.out, plan, block) for block in missing]
    with ProgressLine("packing", total, "images", start=done, shown=not options.quiet) as progress:
        for _ in run_tasks(tasks, options.workers, progress, done):
            pass
        progress.advance_to(total)


def _missing_blocks(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> list[Block]:
    """The blocks without a record, or whose shards are not what their record says."""
    claimed = [block for block in blocks if record_path(options.out, block.number).is_file()]
    if not claimed:
        return list(blocks)
    tasks: list[Task[bool]] = [
        partial(_is_done, options.out, plan, options.strict, block) for block in claimed
    ]
    total = sum(len(block.sources) for block in claimed)
    done = set()
    with ProgressLine(
        "checking what is done", total, "images", shown=not options.quiet
    ) as progress:
        for place, is_done in run_tasks(tasks, options.workers, progress):
            if is_done:
                done.add(claimed[place].number)
        progress.advance_to(total)
    return [block for block in blocks if block.number not in done]


def _pack(root: Path, plan: Plan, block: Block, report: Report) -> None:
    pack_block(root, plan, block, report)


def _is_done(root: Path, plan: Plan, strict: bool, block: Block, report: Report) -> bool:
    """Whether a block need not be packed; what was unreadable (--strict: left out) is tried again: it may be repaired."""
    record = load_done(root, plan, block.number)
    report(len(block.sources))
    if record is None:
        return False
    return not any(strict or entry.reason == UNREADABLE for entry in record.left_out)


def summary(outcome: BuildResult, root: Path, ignored: Sequence[str] = ()) -> str:
    """A few lines for the user: what was packed, what was left out and where that is listed."""
    manifest = outcome.manifest
    shards = sum(len(each) for each in manifest.splits.values())
    lines = [f"{root}: {outcome.num_packed:,} of {outcome.num_sources:,} images in {shards} shards"]
    if len(manifest.splits) > 1:
        lines += [f"  {split}: {manifest.samples(split):,}" for split in manifest.splits]
    if manifest.left_out:
        lines.append(
            f"  left out: {_reasons(manifest.left_out)}; each is listed in {root / LEFT_OUT}"
        )
    if ignored:
        lines.append(
            f"  files that are no images by their names: {len(ignored):,} (first: {ignored[0]!r})"
        )
    lines.append(f"  dataset {manifest.dataset_id}")
    return "\n".join(lines)


def summary_of_part(outcome: PartResult, plan: Plan, root: Path) -> str:
    """A line for the user: how much of the build this part was, and what comes after all parts."""
    packed = outcome.num_sources - len(outcome.left_out)
    what = f"{root}: part {outcome.part}: {outcome.num_blocks} of {plan.num_blocks} blocks, "
    what += f"{packed:,} of {outcome.num_sources:,} images"
    if outcome.left_out:
        what += f" (left out: {_reasons(Counter(entry.reason for entry in outcome.left_out))})"
    return f"{what}; when all parts are done: python -m shards merge {root}"


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))


def check_workers(workers: int) -> int:
    """`workers`, or a `UserError`."""
    if workers < 1:
        raise UserError(f"--workers {workers}: give 1 or more")
    return workers


if __name__ == "__main__":
    sys.exit("run `python -m shards build`")
