"""Build a shard set from images: make a plan, pack its blocks, finalize the set.

A block is a group of images that one worker process packs together. An interrupted
build resumes with the blocks that are missing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shards.builder.finalize import LEFT_OUT, BuildResult, RepackError, describe_left_out, finalize
from shards.builder.pack import Report, pack_block
from shards.builder.parts import Part, lock_part
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
from shards.builder.records import SourceEntry, load_done, load_record, record_path
from shards.builder.selection import Selection, select
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.format.manifest import MANIFEST
from shards.locks import lock
from shards.progress import ProgressLine
from shards.sources.decode import UNREADABLE
from shards.sources.listing import Listing, first_names, open_sources


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a build that do not change the bytes of the shards."""

    out: Path  # output folder
    workers: int = 1  # number of processes
    strict: bool = False  # an image that cannot be packed is an error
    quiet: bool = False  # no output to the terminal


def build(source: str, parameters: Parameters, options: BuildOptions) -> BuildResult:
    """Build a shard set from the images in `source`, or resume an interrupted build.

    Raises UserError if `source` or the folder `options.out` is invalid, another build
    is running in the folder, or an image cannot be packed and `options.strict` is set.
    """
    listing, selection, plan = _list_and_plan(source, parameters, options.out)
    with lock(
        options.out / LOCK,
        f"another build is running in {options.out}: wait for it, or choose a new OUT",
    ):
        save_plan(plan, options.out)
        result = _pack_and_finalize(list(blocks_of(plan, selection.sources)), plan, options)
    if not options.quiet:
        print("\n".join([summary(result, options.out), *not_listed(listing)]))
    return result


def _list_and_plan(
    source: str, parameters: Parameters, out: Path
) -> tuple[Listing, Selection, Plan]:
    check_out(out)
    listing = open_sources(source, out)
    selection = select(parameters.rules, listing.sources, source)
    return listing, selection, make_plan(parameters, listing.sources, selection)


@dataclass(frozen=True)
class PartResult:
    """The result of packing one part (`--part I/N`) of a build."""

    part: Part
    num_blocks: int
    num_sources: int
    left_out: list[SourceEntry]  # without duplicates, which only `merge` removes


def build_part(
    source: str, parameters: Parameters, part: Part, options: BuildOptions
) -> PartResult:
    """Pack one part of a build into the folder `options.out`, without a manifest.

    Other parts of the same build may run at the same time. Raises UserError if `source`
    or the folder is invalid, if a build, a merge or the same part is running in the
    folder, or if an image cannot be packed and `options.strict` is set.
    """
    listing, selection, plan = _list_and_plan(source, parameters, options.out)
    numbers = part.blocks(plan.num_blocks)
    with lock_part(options.out, part):
        save_plan(plan, options.out)
        blocks = list(blocks_of(plan, selection.sources))[numbers.start : numbers.stop]
        pack_blocks(blocks, plan, options)
        left_out = [
            entry for number in numbers for entry in load_record(options.out, plan, number).left_out
        ]
    result = PartResult(part, len(blocks), sum(len(block.sources) for block in blocks), left_out)
    if options.strict and left_out:
        raise UserError(
            f"{describe_left_out(left_out, result.num_sources)}; fix them or omit --strict"
        )
    if not options.quiet:
        print("\n".join([summary_of_part(result, plan, options.out), *not_listed(listing)]))
    return result


def _pack_and_finalize(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> BuildResult:
    # Repeats at most once: no duplicates are removed yet from a block packed again.
    while True:
        pack_blocks(blocks, plan, options)
        try:
            return finalize(options.out, plan, options.strict)
        except RepackError:
            continue


def pack_blocks(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> None:
    """Pack all blocks of images that are missing, damaged or to be tried again."""
    missing = _missing_blocks(blocks, plan, options)
    if not missing:
        return
    (options.out / MANIFEST).unlink(missing_ok=True)  # the files that it names will change
    total = sum(len(block.sources) for block in blocks)
    done = total - sum(len(block.sources) for block in missing)
    tasks: list[Task[None]] = [partial(_pack, options.out, plan, block) for block in missing]
    with ProgressLine("packing", total, "images", start=done, shown=not options.quiet) as progress:
        for _ in run_tasks(tasks, options.workers, progress, done):
            pass
        progress.advance_to(total)


def _missing_blocks(blocks: Sequence[Block], plan: Plan, options: BuildOptions) -> list[Block]:
    """Return the blocks of images that have no record file or are not done."""
    recorded = [block for block in blocks if record_path(options.out, block.number).is_file()]
    if not recorded:
        return list(blocks)
    tasks: list[Task[bool]] = [
        partial(_is_done, options.out, plan, options.strict, block) for block in recorded
    ]
    total = sum(len(block.sources) for block in recorded)
    done = set()
    with ProgressLine(
        "checking finished blocks", total, "images", shown=not options.quiet
    ) as progress:
        for index, is_done in run_tasks(tasks, options.workers, progress):
            if is_done:
                done.add(recorded[index].number)
        progress.advance_to(total)
    return [block for block in blocks if block.number not in done]


def _pack(root: Path, plan: Plan, block: Block, report: Report) -> None:
    pack_block(root, plan, block, report)


def _is_done(root: Path, plan: Plan, strict: bool, block: Block, report: Report) -> bool:
    """Return whether a block of images is packed and need not be packed again."""
    record = load_done(root, plan, block.number)
    report(len(block.sources))
    if record is None:
        return False
    # An unreadable image is tried again, because the user may have repaired it since
    # then.
    return not any(strict or entry.reason == UNREADABLE for entry in record.left_out)


def summary(result: BuildResult, root: Path) -> str:
    """Return a few lines that say how many images were packed and left out."""
    manifest = result.manifest
    shards = sum(len(each) for each in manifest.splits.values())
    lines = [f"{root}: {result.num_packed:,} of {result.num_sources:,} images in {shards} shards"]
    if len(manifest.splits) > 1:
        lines += [f"  {split}: {manifest.samples(split):,}" for split in manifest.splits]
    if result.unused:
        lines.append(f"  not in any split: {_reasons(result.unused)}")
    if result.failures:
        lines.append(
            f"  left out: {_reasons(result.failures)}; each is listed in {root / LEFT_OUT}"
        )
    lines.append(f"  dataset {manifest.dataset_id}")
    return "\n".join(lines)


def not_listed(listing: Listing) -> list[str]:
    """Return lines that report the hidden and ignored files in SOURCE."""
    kinds = {
        "files ignored because of their suffix": listing.ignored,
        "hidden files, and folders of thumbnails, left out": listing.hidden,
    }
    return [
        f"  {kind}: {len(names):,} ({first_names(names)})" for kind, names in kinds.items() if names
    ]


def summary_of_part(result: PartResult, plan: Plan, root: Path) -> str:
    """Return a line that says what a part of a build packed, and what to do next."""
    packed = result.num_sources - len(result.left_out)
    text = f"{root}: part {result.part}: {result.num_blocks} of {plan.num_blocks} blocks, "
    text += f"{packed:,} of {result.num_sources:,} images"
    if result.left_out:
        text += f" (left out: {_reasons(Counter(entry.reason for entry in result.left_out))})"
    return f"{text}; when all parts are done: colortrain shards merge {root}"


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))


def check_workers(workers: int) -> int:
    """Return `workers`; raises UserError if it is less than 1."""
    if workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    return workers


if __name__ == "__main__":
    sys.exit("run `colortrain shards build`")
