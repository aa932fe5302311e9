"""One HTML file that shows what became of a run, or of several beside each other.

python -m launch.report runs/first --out report
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from launch.doors import DoorParser
from launch.report.story import read_stories
from launch.report.write import page
from shards.errors import UserError, run_door
from shards.files import write_whole

_EXAMPLE = """\
example: two runs beside each other
  python -m launch.report runs/first runs/second --out report
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT/report.html; returns the exit status."""
    words = DoorParser("launch.report", "Show what became of runs in one HTML file that opens from disk.", _EXAMPLE)
    words.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders that launch.train wrote")
    words.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for report.html")
    asked = words.parse_args(argv)
    if asked.out.is_file():
        raise UserError(f"--out {asked.out} is a file: give a folder")
    path = asked.out / "report.html"
    text = page(read_stories(asked.runs)).encode()
    write_whole(path, text)
    print(f"{path} ({len(text) / 1e6:.1f} MB): open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(run_door("launch.report", main))
