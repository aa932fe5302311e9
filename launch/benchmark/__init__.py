"""Benchmarks of colortrain and other code on this machine, measured in turns.

    colortrain benchmark loader --shards photos-256 --json loader.json
    colortrain benchmark build --source photos --size 256

Only ratios can be compared between machines; every report describes the machine on
which it was measured.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from shards.errors import UserError, unknown

# Name -> (module with a `main(argv)`, description).
BENCHMARKS: dict[str, tuple[str, str]] = {
    "loader": (
        "launch.benchmark.loading.loader",
        "read shards, make batches of them, and seek to any position",
    ),
    "build": ("launch.benchmark.loading.build", "build shards from photographs"),
    "step": (
        "launch.benchmark.training.step",
        "a training step, compared with a loop in plain PyTorch and with each flag",
    ),
    "scaling": (
        "launch.benchmark.training.scaling",
        "several processes, each with a batch of its own or with a part of one batch",
    ),
    "checkpoint": (
        "launch.benchmark.training.checkpoint",
        "save and resume: seconds, and how long training is blocked",
    ),
}
_EXAMPLE = """\
`colortrain benchmark NAME --help` describes the options.

example:
  colortrain benchmark loader --shards photos-256 --json loader.json
"""


def usage() -> str:
    """Return the help text: the benchmarks with their descriptions."""
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:<{width}}  {description}" for name, (_, description) in BENCHMARKS.items()]
    return "\n".join(["usage: colortrain benchmark NAME [OPTIONS...]", "", *lines, "", _EXAMPLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark that the first argument names and return the exit status.

    Raises UserError for an unknown name.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(usage())
        raise SystemExit(0)
    if not name:
        raise UserError(f"no benchmark named; valid: {', '.join(BENCHMARKS)} (see --help)")
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    status: int = importlib.import_module(BENCHMARKS[name][0]).main(rest)
    return status
