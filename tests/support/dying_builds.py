"""One process that forks a build for each instant it may die at.

    python -m tests.support.dying_builds PHOTOS FOLDER POINTS WAY

A child dies before the n-th call that changes what is on disk; then the same build must end with the same bytes.
WAY is `plain`, or `parts`: two parts in two folders and a merge, which must be those of a plain build.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.builder.build import BuildOptions, build_part
from shards.builder.merge import merge
from shards.builder.parts import Part
from shards.builder.plan import Parameters
from tests.support.photographs import fingerprint, pack_folder

CALLS = ("open", "mkdir", "fsync", "link", "replace", "rename", "unlink")
OPTIONS: dict[str, Any] = {"size": 16, "splits": "train=.6,val=.4", "shard_size": 4}
Build = Callable[[Path, Path], None]


def build_plainly(photos: Path, out: Path) -> None:
    pack_folder(photos, out, **OPTIONS)


def build_in_parts(photos: Path, out: Path) -> None:
    other = out.with_name(f"{out.name} of another machine")
    for number, folder in enumerate((out, other), 1):
        build_part(
            str(photos),
            Parameters(**OPTIONS),
            Part(number, 2),
            BuildOptions(out=folder, quiet=True),
        )
    merge([other], BuildOptions(out=out, quiet=True))


WAYS: dict[str, Build] = {"plain": build_plainly, "parts": build_in_parts}


def count_calls(last: int) -> list[int]:
    """Let this process die before the call of that number; the list returned counts them."""
    counted = [0]

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted_call(*arguments: Any, **options: Any) -> Any:
            counted[0] += 1
            if counted[0] == last:
                os._exit(9)
            return call(*arguments, **options)

        return counted_call

    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))
    return counted


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a forked child that does this work."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os._exit(work())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(8)


def calls_of_a_build(build: Build, photos: Path, out: Path) -> int:
    reader, writer = os.pipe()

    def work() -> int:
        counted = count_calls(-1)
        build(photos, out)
        os.write(writer, str(counted[0]).encode())
        return 0

    assert in_child(work) == 0
    return int(os.read(reader, 100))


def die_at(build: Build, photos: Path, out: Path, point: int) -> int:
    def work() -> int:
        count_calls(point)
        build(photos, out)
        return 0

    return in_child(work)


def main(photos: Path, folder: Path, points: int, build: Build) -> None:
    build_plainly(photos, folder / "undisturbed")  # and everything is imported
    expected = fingerprint(folder / "undisturbed")
    total = calls_of_a_build(build, photos, folder / "counted")
    instants = sorted({1 + place * (total - 1) // (points - 1) for place in range(points)})
    for point in instants:
        out = folder / f"out{point}"
        assert die_at(build, photos, out, point) == 9, point
        again = die_at(build, photos, out, point // 2 + 1)  # and once more while it goes on
        assert again in (0, 9), (point, again)
        build(photos, out)
        assert fingerprint(out) == expected, point
    print(f"{len(instants)} of {total} instants")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), WAYS[sys.argv[4]])
