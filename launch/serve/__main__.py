"""`python -m launch.serve --run DIR`."""

from __future__ import annotations

import sys

from launch.serve import main
from shards.errors import run_door

if __name__ == "__main__":
    sys.exit(run_door("launch.serve", main))
