"""Measure how fast this machine reads, builds and trains, compared with other code.

colortrain benchmark loader --shards photos-256 --json loader.json
colortrain benchmark build --source photos --size 256
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from shards.errors import UserError, unknown

# Name -> (module with a `main(argv)`, description).
BENCHMARKS: dict[str, tuple[str, str]] = {
    "loader": (
        "launch.benchmark.loader",
        "read shards, make batches of them, and seek to any position",
    ),
    "build": ("launch.benchmark.build", "build shards from photographs"),
    "step": (
        "launch.benchmark.step",
        "take training steps, with each flag and with a loop in plain PyTorch",
    ),
    "counts": (
        "launch.benchmark.counts",
        "count what the steps of every recipe do on a GPU: operations, waits, copies, memory",
    ),
    "scaling": (
        "launch.benchmark.scaling",
        "train on several processes (weak and strong scaling)",
    ),
    "checkpoint": (
        "launch.benchmark.checkpoint",
        "save checkpoints and resume from them",
    ),
}
_EXAMPLE = """\
`colortrain benchmark NAME --help` describes the options.

example:
  colortrain benchmark loader --shards photos-256 --json loader.json
"""


def usage() -> str:
    """Return the text of `colortrain benchmark --help`, which lists all benchmarks."""
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:<{width}}  {description}" for name, (_, description) in BENCHMARKS.items()]
    return "\n".join(["usage: colortrain benchmark NAME [OPTIONS...]", "", *lines, "", _EXAMPLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark that the first argument names and return its exit status.

    Raises UserError if the name is missing or unknown.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(usage())
        raise SystemExit(0)
    if not name:
        raise UserError(f"no benchmark given; valid: {', '.join(BENCHMARKS)} (see --help)")
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    status: int = importlib.import_module(BENCHMARKS[name][0]).main(rest)
    return status
