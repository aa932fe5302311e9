"""Train like `colortrain train`, and write the peak memory to RUN/peak.json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from colortrain.distributed.device import num_gpus
from colortrain.training.train_metrics import DivergedError
from launch import train
from launch.experiment.entries import DIVERGED, PEAK, Peak
from launch.processes import exit_process, memory_mb
from shards.errors import run_command
from shards.files import write_atomic
from shards.json_files import read_json


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write the peak memory; return the exit status of `colortrain train`.

    If training diverges, RUN/diverged.json says so.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    run = train.make_parser().parse_args(args).run
    is_main = os.environ.get("RANK", "0") == "0"
    try:
        return train.main(args)
    except DivergedError as error:
        if is_main:
            write_atomic(run / DIVERGED, json.dumps({"message": str(error)}).encode())
        raise
    finally:
        if is_main and run.is_dir():
            _record_peak(run / PEAK)


def _record_peak(path: Path) -> None:
    """Write the peak memory to a file, unless an earlier start had a larger one."""
    # The parent process cannot measure the peak: the operating system does not report
    # GPU memory to it, and for the resident memory of a child process at least what the
    # parent itself used when it started the child. All processes need the same amount.
    advice = "delete it, then run the same command again"
    earlier = read_json(path, Peak, advice) if path.is_file() else {"peak_mb": 0.0}
    largest = max(peak_memory(), earlier, key=lambda each: each["peak_mb"])
    write_atomic(path, json.dumps(largest).encode())


def peak_memory() -> dict[str, Any]:
    """Return the peak memory of this process, as {"peak_mb", "peak_of"}.

    "peak_of" is "GPU memory" if there is a GPU, else "resident memory".
    """
    if num_gpus():
        return {"peak_mb": torch.cuda.max_memory_allocated() / 1e6, "peak_of": "GPU memory"}
    return {"peak_mb": memory_mb("VmHWM"), "peak_of": "resident memory"}


if __name__ == "__main__":
    exit_process(run_command("train", main))
