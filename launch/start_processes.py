"""Run `accelerate launch`, and exit with the status of the process that failed.

    python -m launch.start_processes --config_file launch/accelerate/cpu.yaml \\
        --num_processes 2 -m launch.train ...

`accelerate launch` itself exits with status 1 whatever the status of its processes is,
and prints a traceback of its own below their messages.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from accelerate.commands.launch import main as accelerate_launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from colortrain.runs.layout import EXIT_LOST_RANK


def main() -> int:
    """Run `accelerate launch` with the arguments of this program; return the status."""
    try:
        accelerate_launch()
    except ChildFailedError as error:
        statuses = [failure.exitcode for failure in error.failures.values()]
        if min(statuses) < 0:  # a killed process prints nothing itself
            print(error, file=sys.stderr)
        return common_status(statuses)
    except subprocess.CalledProcessError as error:  # of the only process
        return common_status([error.returncode])
    return 0


def common_status(statuses: Iterable[int]) -> int:
    """Return the exit status for several failed processes: that of the first cause.

    A process that has lost the connection to the others (`EXIT_LOST_RANK`) only follows
    another. As in a shell, the status after signal N, which is -N here, is 128 + N.
    """
    causes = [status for status in statuses if status != EXIT_LOST_RANK] or [EXIT_LOST_RANK]
    return causes[0] if causes[0] > 0 else 128 - causes[0]


if __name__ == "__main__":
    sys.exit(main())
