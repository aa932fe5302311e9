"""The entry point of `python -m launch.serve --run DIR`."""

from __future__ import annotations

import sys

from launch.serve import main
from shards.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command("serve", main))
