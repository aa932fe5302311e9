"""The entry point of `python -m launch.benchmark NAME ...`."""

from __future__ import annotations

import sys

from launch.benchmark import main
from shards.errors import run_command

if __name__ == "__main__":  # spawned processes import this file again
    sys.exit(run_command("launch.benchmark", main))
