"""What this machine makes of our code and of others', as ratios measured side by side in one run.

    python -m launch.benchmark loader --shards photos-256 --json loader.json
    python -m launch.benchmark build --source photos --size 256

Only ratios are worth carrying from one machine to another; every report says on what it was measured.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from shards.errors import UserError, unknown

# Name -> (module with a `main(argv)`, one phrase).
BENCHMARKS: dict[str, tuple[str, str]] = {
    "loader": (
        "launch.benchmark.loading.loader",
        "reading shards and making batches of them, and finding any position",
    ),
    "build": ("launch.benchmark.loading.build", "packing photographs into shards"),
    "step": (
        "launch.benchmark.training.step",
        "a training step, beside a loop in plain PyTorch and with each flag",
    ),
    "scaling": (
        "launch.benchmark.training.scaling",
        "more processes, each with a batch of its own or with one batch shared",
    ),
    "checkpoint": (
        "launch.benchmark.training.checkpoint",
        "saving and resuming: seconds, and how long training is blocked",
    ),
}
_EXAMPLE = """\
`python -m launch.benchmark NAME --help` says more. example:
  python -m launch.benchmark loader --shards photos-256 --json loader.json
"""


def usage() -> str:
    """The benchmarks, with a phrase each."""
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:<{width}}  {phrase}" for name, (_, phrase) in BENCHMARKS.items()]
    return "\n".join(
        ["usage: python -m launch.benchmark NAME [WORDS...]", "", *lines, "", _EXAMPLE]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark that the first word names; returns the exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(usage())
        raise SystemExit(0)
    if not name:
        raise UserError(f"no benchmark named; valid: {', '.join(BENCHMARKS)} (--help says more)")
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    status: int = importlib.import_module(BENCHMARKS[name][0]).main(rest)
    return status
