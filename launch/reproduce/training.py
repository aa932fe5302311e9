"""`launch.train` as the tables start it: on a GPU it leaves in RUN/peak.json what memory it took there at most.

The operating system tells that of a process on the CPU alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import torch

from launch import train
from launch.processes import leave
from launch.reproduce.runs import PEAK
from shards.errors import run_door
from shards.files import write_whole


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status of `launch.train`. The first process speaks for all: they hold the same."""
    words = list(sys.argv[1:] if argv is None else argv)
    status = train.main(words)
    if torch.cuda.is_available() and os.environ.get("RANK", "0") == "0":
        peak = {"peak_mb": torch.cuda.max_memory_allocated() / 1e6, "peak_of": "GPU memory"}
        write_whole(train.parser().parse_args(words).run / PEAK, json.dumps(peak).encode())
    return status


if __name__ == "__main__":
    leave(run_door("launch.train", main))
