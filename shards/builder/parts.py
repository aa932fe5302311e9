"""Shares of a build for many machines: which blocks are whose, and who may work on OUT at the same time.

OUT/.lock           held by a build or a merge alone, or by any number of parts together
OUT/.lock-2-of-8    held by part 2/8 alone; gone when the set is finished
"""

from __future__ import annotations

import fcntl
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shards.builder.plan import LOCK
from shards.errors import UserError
from shards.files import lock

_LOCK_NAME = re.compile(re.escape(LOCK) + r"-\d+-of-(\d+)")


@dataclass(frozen=True)
class Part:
    """One of `count` shares of a build, numbered from 1: consecutive blocks, as many as the others' or one more."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UserError(f"--part {self}: write I/N with I from 1 to N, such as 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def blocks(self, total: int) -> range:
        """The numbers of its blocks among `total`; none for some parts where there are more parts than blocks."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


def parse_part(text: str) -> Part:
    """The part that `I/N` names; raises `UserError`."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise UserError(f"--part {text}: write I/N with I from 1 to N, such as 2/8")
    return Part(int(number), int(count))


@contextmanager
def hold_part(root: Path, part: Part) -> Iterator[None]:
    """Work on OUT beside other parts, but beside no build, no merge and no second process of this part."""
    at_work = f"another build is at work on {root}: wait for it, or choose a new OUT"
    with _share(root / LOCK, at_work):
        path = root / f"{LOCK}-{part.number}-of-{part.count}"
        with lock(path, f"part {part} is at work on {root} already: wait for it"):
            yield


@contextmanager
def _share(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file together with others that share it; `UserError(message)` if somebody holds it alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(
        path, "a+b"
    ) as held:  # network file systems want a file that can be read for a shared lock
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(message) from None
        except OSError as error:
            print(
                f"{path} cannot be locked ({error.strerror}): start no merge while parts work",
                file=sys.stderr,
            )
        yield


def counts_of_parts(folders: Iterable[Path]) -> set[int]:
    """The N of every `--part I/N` that has worked on one of these folders since it was last a finished set."""
    names = (path.name for folder in folders for path in folder.glob(f"{LOCK}-*"))
    return {int(found[1]) for found in map(_LOCK_NAME.fullmatch, names) if found}


def remove_part_locks(root: Path) -> None:
    """Remove the parts' lock files; only for who holds OUT alone."""
    for path in root.glob(f"{LOCK}-*"):
        if _LOCK_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
