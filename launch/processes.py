"""How a door becomes several processes, by `accelerate launch` with one of our configurations, and what one holds."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import NoReturn

import torch
import yaml

from shards.errors import UserError

CONFIGS = Path(__file__).parent / "accelerate"


def check_processes(count: int, word: str = "--processes") -> None:
    """Raise `UserError`, about `word`, unless there can be `count` processes: one a GPU where there are GPUs."""
    gpus = torch.cuda.device_count()
    if count < 1 or (gpus and count > gpus):
        raise UserError(f"{word} {count}: give a number from 1 to {gpus or 'the number of cores'}")


def leave(status: int) -> NoReturn:
    """End this process with `status`; one of several leaves at once, without tearing down the interpreter.

    Threads of gloo and of the rendez-vous store abort an ordinary exit now and then, after right results (SIGABRT,
    "terminate called without an active exception"), and the launcher then calls the whole run failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(status)
    sys.exit(status)


def num_processes_for(batch_size: int) -> int:
    """How many processes share a batch: as many as there are GPUs (two on CPU cores), or the most that divide both."""
    return math.gcd(batch_size, torch.cuda.device_count() or 2)


def launcher(processes: int | None = None) -> list[str]:
    """`accelerate launch` for `processes`; by default one for each GPU, or two on CPU cores. Append `-m door words`."""
    processes = processes or torch.cuda.device_count() or 2
    words = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(configuration(processes)),
    ]
    return [*words, "--num_processes", str(processes)]


def configuration(processes: int) -> Path:
    """Which of our configurations `processes` here are started by."""
    config = (
        "cpu.yaml"
        if not torch.cuda.device_count()
        else "one_gpu.yaml"
        if processes == 1
        else "ddp.yaml"
    )
    return CONFIGS / config


def precision(processes: int) -> str:
    """The mixed precision of that configuration: "no", "bf16", ..."""
    return str(yaml.safe_load(configuration(processes).read_text())["mixed_precision"])


def memory_mb(name: str) -> float:
    """A figure of /proc/self/status: VmHWM (the most resident ever), RssAnon, RssFile."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
