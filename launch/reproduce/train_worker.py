"""Train like `colortrain train`, and write the peak memory to RUN/peak.json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from colortrain.distributed.device import num_gpus
from launch import train
from launch.processes import exit_process, memory_mb
from launch.reproduce.entries import PEAK, Peak
from shards.errors import run_command
from shards.files import write_atomic
from shards.json_files import read_json


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write the peak memory; return the exit status of `colortrain train`."""
    args = list(sys.argv[1:] if argv is None else argv)
    # The parent process cannot measure the peak: the operating system does not report
    # GPU memory to it, and for the resident memory of a child process at least what the
    # parent itself used when it started the child.
    status = train.main(args)
    # All processes need the same amount.
    if os.environ.get("RANK", "0") == "0":
        path = train.make_parser().parse_args(args).run / PEAK
        advice = "delete it, then run the same command again"
        # A larger peak of an earlier start of the run is kept.
        earlier = read_json(path, Peak, advice) if path.is_file() else {"peak_mb": 0.0}
        largest = max(peak_memory(), earlier, key=lambda each: each["peak_mb"])
        write_atomic(path, json.dumps(largest).encode())
    return status


def peak_memory() -> dict[str, Any]:
    """Return the peak memory of this process, as {"peak_mb", "peak_of"}.

    "peak_of" is "GPU memory" if there is a GPU, else "resident memory".
    """
    if num_gpus():
        return {"peak_mb": torch.cuda.max_memory_allocated() / 1e6, "peak_of": "GPU memory"}
    return {"peak_mb": memory_mb("VmHWM"), "peak_of": "resident memory"}


if __name__ == "__main__":
    exit_process(run_command("train", main))
