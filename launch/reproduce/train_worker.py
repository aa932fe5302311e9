"""`launch.train` as the tables start it: it leaves in RUN/peak.json what memory the run took at most.

Nobody else can tell. On a GPU the operating system does not know; of a process on CPUs it tells, to its parent, the
larger of the child's peak and of what the parent itself held when it started the child.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from launch import train
from launch.processes import leave, memory_mb
from launch.reproduce.entries import PEAK
from shards.errors import run_command
from shards.files import write_atomic


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status of `launch.train`. The first process speaks for all: they hold the same."""
    words = list(sys.argv[1:] if argv is None else argv)
    status = train.main(words)
    if os.environ.get("RANK", "0") == "0":
        path = train.parser().parse_args(words).run / PEAK
        earlier = json.loads(path.read_text()) if path.is_file() else {"peak_mb": 0.0}
        write_atomic(
            path, json.dumps(max(peak(), earlier, key=lambda each: each["peak_mb"])).encode()
        )
    return status


def peak() -> dict[str, Any]:
    """The most memory, in MB, that this process has held so far: of its GPU, or resident."""
    if torch.cuda.is_available():
        return {"peak_mb": torch.cuda.max_memory_allocated() / 1e6, "peak_of": "GPU memory"}
    return {"peak_mb": memory_mb("VmHWM"), "peak_of": "resident memory"}


if __name__ == "__main__":
    leave(run_command("launch.train", main))
