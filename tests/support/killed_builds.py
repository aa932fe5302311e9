"""Run a build that is killed at many points, and check that it then resumes correctly.

    python -m tests.support.killed_builds PHOTOS FOLDER POINTS MODE

A forked child exits before the n-th call that changes something on disk; then the same
build must finish with the same bytes. MODE is `plain`, or `parts`: two parts in two
folders and a merge, which must give the bytes of a plain build; or `counts`: the same
with numbers of images, so that spare images are dropped and others move to their split.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shards.builder.build import BuildOptions, build_part
from shards.builder.merge import merge
from shards.builder.parts import Part
from shards.builder.plan import Parameters
from tests.support.photographs import fingerprint, pack_folder

CALLS = ("open", "mkdir", "fsync", "link", "replace", "rename", "unlink")
FRACTIONS: dict[str, Any] = {"size": 16, "splits": "train=.6,val=.4", "shard_size": 4}
COUNTS: dict[str, Any] = {"size": 16, "splits": "train=5,val=2", "shard_size": 4, "spare": 0.6}
Build = Callable[[Path, Path], None]


def build_plain(options: dict[str, Any], photos: Path, out: Path) -> None:
    pack_folder(photos, out, **options)


def build_in_parts(options: dict[str, Any], photos: Path, out: Path) -> None:
    other = out.with_name(f"{out.name} of another machine")
    for number, folder in enumerate((out, other), 1):
        build_part(
            str(photos),
            Parameters(**options),
            Part(number, 2),
            BuildOptions(out=folder, quiet=True),
        )
    merge([other], BuildOptions(out=out, quiet=True))


# The build that is killed, and the one whose bytes it must have in the end.
MODES: dict[str, tuple[Build, Build]] = {
    mode: (partial(build, options), partial(build_plain, options))
    for mode, build, options in (
        ("plain", build_plain, FRACTIONS),
        ("parts", build_in_parts, FRACTIONS),
        ("counts", build_in_parts, COUNTS),
    )
}


def exit_before_call(number: int) -> list[int]:
    """Make this process exit before the given call in CALLS.

    Returns a list whose only item is the number of calls so far.
    """
    count = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted_call(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                os._exit(9)
            return call(*args, **kwargs)

        return counted_call

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    return count


def run_in_child(function: Callable[[], int]) -> int:
    """Return the exit status of a forked child that calls `function`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os._exit(function())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(8)


def count_calls(build: Build, photos: Path, out: Path) -> int:
    """Return the number of calls in CALLS that a complete build makes."""
    reader, writer = os.pipe()

    def work() -> int:
        count = exit_before_call(-1)
        build(photos, out)
        os.write(writer, str(count[0]).encode())
        return 0

    assert run_in_child(work) == 0
    return int(os.read(reader, 100))


def build_killed_at(build: Build, photos: Path, out: Path, point: int) -> int:
    """Return the exit status of a build killed before call `point`; 0 if it ended."""

    def work() -> int:
        exit_before_call(point)
        build(photos, out)
        return 0

    return run_in_child(work)


def main(photos: Path, folder: Path, points: int, build: Build, plain: Build) -> None:
    plain(photos, folder / "uninterrupted")  # this also imports everything before forks
    expected = fingerprint(folder / "uninterrupted")
    total = count_calls(build, photos, folder / "counted")
    calls = sorted({1 + index * (total - 1) // (points - 1) for index in range(points)})
    for call in calls:
        out = folder / f"out{call}"
        assert build_killed_at(build, photos, out, call) == 9, call
        status = build_killed_at(build, photos, out, call // 2 + 1)  # again, while it resumes
        assert status in (0, 9), (call, status)
        build(photos, out)
        assert fingerprint(out) == expected, call
    print(f"{len(calls)} of {total} calls")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *MODES[sys.argv[4]])
