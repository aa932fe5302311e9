"""The entry point of `python -m launch.reproduce TABLE ...`."""

from __future__ import annotations

import sys

from launch.reproduce import main
from shards.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command("reproduce", main))
