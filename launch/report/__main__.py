"""Write a report on one or several runs as one HTML file.

colortrain report runs/first --out report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cli import CommandParser, add_cache_arguments, at_least_one, make_cache
from launch.report.photographs import photo_section, score_samples
from launch.report.render import render_page
from launch.report.run_history import read_histories
from shards.errors import UserError, run_command
from shards.files import write_atomic
from shards.progress import ProgressLine

_EXAMPLE = """\
example: compare two runs, with held-out photographs colorized by both
  colortrain report runs/first runs/second --out report --shards photos-256
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        "report",
        "Write a report on one or several runs: one HTML file that requires no server.",
        _EXAMPLE,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for report.html"
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        help="shards whose held-out photographs the report shows, including the best and the worst",
    )
    add_cache_arguments(parser)
    parser.add_argument(
        "--photos",
        type=at_least_one,
        default=200,
        metavar="N",
        help="number of held-out photographs to score (default: 200)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT/report.html and return the exit status."""
    args = make_parser().parse_args(argv)
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: give a folder")
    path = args.out / "report.html"
    histories = read_histories(args.runs)
    text = render_page(histories, _photo_sections(args) if args.shards else None)
    page = text.encode(errors="backslashreplace")  # names of runs may not be UTF-8
    write_atomic(path, page)
    print(f"{path} ({len(page) / 1e6:.1f} MB): open it in a browser")
    return 0


def _photo_sections(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return, for each run, the data of its section of photographs."""
    # The more runs the report has, the fewer photographs of each.
    count = max(2, 8 // len(args.runs))
    cache, sections = make_cache(args), []
    with ProgressLine("scoring photographs", len(args.runs), "runs") as progress:
        for done, run in enumerate(args.runs, 1):
            samples = score_samples(run, args.shards, args.photos, cache)
            sections.append(photo_section(samples, count))
            progress.advance_to(done)
    return sections


if __name__ == "__main__":
    sys.exit(run_command("report", main))
