"""Parts of a build on several machines (`--part I/N`), and their lock files.

OUT/.lock           locked by a build or a merge, or shared by all running parts
OUT/.lock-2-of-8    locked by part 2/8; deleted when the shard set is finished
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shards.builder.plan import LOCK
from shards.errors import UserError
from shards.locks import lock

_LOCK_NAME = re.compile(re.escape(LOCK) + r"-\d+-of-(\d+)")


@dataclass(frozen=True)
class Part:
    """Part I of N of a build (`--part I/N`): the images that one machine packs.

    `number` is I, counted from 1, and `count` is N. Raises UserError if I is out of
    range.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UserError(f"--part {self}: give I/N with I from 1 to N, such as 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def blocks(self, total: int) -> range:
        """Return the indices of the blocks that this part packs, of `total` blocks."""
        # Consecutive blocks; the sizes of all parts differ by at most one block.
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


def parse_part(text: str) -> Part:
    """Parse the value `I/N` of --part; raises UserError if it is invalid."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise UserError(f"--part {text}: give I/N with I from 1 to N, such as 2/8")
    return Part(int(number), int(count))


@contextmanager
def lock_part(root: Path, part: Part) -> Iterator[None]:
    """Lock the output folder for one part during the `with` block.

    Raises UserError if a build, a merge or another process of the same part is running.
    """
    message = f"another build is running in {root}: wait for it, or choose a new OUT"
    risk = "do not start a merge while parts are running"
    with lock(root / LOCK, message, shared=True, risk=risk):
        path = root / f"{LOCK}-{part.number}-of-{part.count}"
        with lock(path, f"part {part} is already running in {root}: wait until it ends"):
            yield


def part_counts(folders: Iterable[Path]) -> set[int]:
    """Return every N for which parts `--part I/N` of a build are in these folders."""
    # These lock files are deleted when the shard set is finished.
    names = (path.name for folder in folders for path in folder.glob(f"{LOCK}-*"))
    return {int(match[1]) for match in map(_LOCK_NAME.fullmatch, names) if match}


def remove_part_locks(root: Path) -> None:
    """Delete the lock files of all parts in `root`.

    The caller must hold the exclusive lock on the folder.
    """
    for path in root.glob(f"{LOCK}-*"):
        if _LOCK_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
