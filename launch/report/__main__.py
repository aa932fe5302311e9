"""One HTML file that shows what became of a run, or of several beside each other.

python -m launch.report runs/first --out report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cli import CommandParser, add_cache_arguments, at_least_one, make_cache
from launch.report.photographs import look, photographs
from launch.report.render import page
from launch.report.run_history import read_stories
from shards.errors import UserError, run_command
from shards.files import write_atomic
from shards.progress import ProgressLine

_EXAMPLE = """\
example: two runs beside each other, with what they make of held-out photographs
  python -m launch.report runs/first runs/second --out report --shards photos-256
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT/report.html; returns the exit status."""
    words = CommandParser(
        "launch.report", "Show what became of runs in one HTML file that opens from disk.", _EXAMPLE
    )
    words.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders that launch.train wrote"
    )
    words.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for report.html"
    )
    words.add_argument(
        "--shards",
        metavar="DIR",
        help="the shards, for what needs them: photographs, best and worst",
    )
    add_cache_arguments(words)
    words.add_argument(
        "--photos",
        type=at_least_one,
        default=200,
        metavar="N",
        help="look at so many held-out ones; default 200",
    )
    asked = words.parse_args(argv)
    if asked.out.is_file():
        raise UserError(f"--out {asked.out} is a file: give a folder")
    path = asked.out / "report.html"
    stories = read_stories(asked.runs)
    text = page(stories, _photographs(asked) if asked.shards else None).encode()
    write_atomic(path, text)
    print(f"{path} ({len(text) / 1e6:.1f} MB): open it in a browser")
    return 0


def _photographs(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each run what it makes of the same photographs; more runs show fewer."""
    each = max(2, 8 // len(asked.runs))
    cache, shown = make_cache(asked), []
    with ProgressLine("looking at photographs", len(asked.runs), "runs") as progress:
        for done, run in enumerate(asked.runs, 1):
            shown.append(photographs(look(run, asked.shards, asked.photos, cache), each))
            progress.advance_to(done)
    return shown


if __name__ == "__main__":
    sys.exit(run_command("launch.report", main))
