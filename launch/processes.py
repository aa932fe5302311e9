"""Start several processes through `accelerate launch`, and measure memory."""

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


def check_processes(count: int, option: str = "--processes") -> None:
    """Raise UserError, naming `option`, unless this machine can run `count` processes.

    With GPUs, each process needs its own.
    """
    gpus = torch.cuda.device_count()
    if count < 1 or (gpus and count > gpus):
        raise UserError(
            f"{option} {count}: give a number from 1 to {gpus or 'the number of cores'}"
        )


def exit_process(status: int) -> NoReturn:
    """Exit this process; if it is one of several, without the interpreter's shutdown.

    Threads of gloo and of the rendezvous store occasionally abort a normal exit after
    correct results (SIGABRT, "terminate called without an active exception"), and the
    launcher would then report the whole run as failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(status)
    sys.exit(status)


def num_processes_for(batch_size: int) -> int:
    """Return how many processes to train with: gcd(batch size, number of devices).

    The devices are the GPUs; without a GPU, two processes on CPU cores are assumed.
    """
    return math.gcd(batch_size, torch.cuda.device_count() or 2)


def launch_command(processes: int | None = None) -> list[str]:
    """Return an `accelerate launch` command line, without `-m MODULE ARGS`.

    By default, `processes` is one per GPU, or two on CPU cores.
    """
    processes = processes or torch.cuda.device_count() or 2
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(config_file(processes))]
    return [*command, "--num_processes", str(processes)]


def config_file(processes: int) -> Path:
    """Return the file in launch/accelerate for `processes` on this machine."""
    if not torch.cuda.device_count():
        return CONFIGS / "cpu.yaml"
    return CONFIGS / ("one_gpu.yaml" if processes == 1 else "ddp.yaml")


def mixed_precision(processes: int) -> str:
    """Return the mixed precision in `config_file(processes)`: "no", "bf16", ..."""
    return str(yaml.safe_load(config_file(processes).read_text())["mixed_precision"])


def memory_mb(name: str) -> float:
    """Return a field of /proc/self/status, such as VmHWM (peak resident), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
