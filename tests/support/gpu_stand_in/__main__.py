"""Run a command as if this machine had GPUs.

    python -m tests.support.gpu_stand_in [--gpus N] COMMAND...

For example `python -m tests.support.gpu_stand_in --gpus 2 .venv/bin/pytest -m gpu`.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.support.gpu_stand_in.build import environment, why_unavailable


def main() -> None:
    """Build the library if necessary, and replace this process by the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    reason = why_unavailable()
    if reason or not args.command:
        sys.exit(reason or "no command given")
    os.execvpe(args.command[0], args.command, {**os.environ, **environment(args.gpus)})


if __name__ == "__main__":
    main()
