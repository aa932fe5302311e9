"""Start several processes with `accelerate launch`; measure a process's memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import yaml

from colortrain.distributed.batch_statistics import local_layers
from colortrain.distributed.device import num_gpus
from colortrain.recipe import Recipe
from shards.errors import UserError

CONFIGS = Path(__file__).parent / "accelerate"


def check_processes(count: int, option: str = "--processes") -> None:
    """Raise UserError unless this machine can run `count` training processes.

    option: the command-line option that the message names.
    """
    gpus = num_gpus()
    # Each process needs a GPU of its own.
    if count < 1 or (gpus and count > gpus):
        raise UserError(
            f"{option} {count}: give a number from 1 to {gpus or 'the number of cores'}"
        )


def exit_process(status: int) -> NoReturn:
    """Exit this process; if it is one of several, skip Python's normal shutdown."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Background threads of torch.distributed (gloo and the rendezvous store) sometimes
    # abort a normal shutdown with SIGABRT, although the results are correct.
    # `accelerate launch` would then report the whole run as failed.
    if os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(status)
    sys.exit(status)


def num_processes_for(recipe: Recipe) -> int:
    """Return with how many processes to train a recipe whose scores are compared.

    One if layers use statistics of a process's images: the scores would depend on the
    number of GPUs. Otherwise the largest divisor of the batch size up to the number of
    GPUs. Without GPUs it is one, because one process uses all cores.
    """
    gpus = num_gpus()
    if not gpus or local_layers(recipe):
        return 1
    return max(count for count in range(1, gpus + 1) if recipe.batch_size % count == 0)


def training_launcher(recipe: Recipe) -> list[str]:
    """Return the start of the command line that trains such a recipe, before `-m`."""
    # With small images in small batches, two processes on CPUs would mostly wait for
    # each other.
    if not num_gpus():
        return [sys.executable]
    # also for one GPU, so that the precision does not depend on the number of GPUs
    return launch_command(num_processes_for(recipe))


def launch_command(processes: int | None = None) -> list[str]:
    """Return the start of a command line of `accelerate launch` for this machine.

    The caller appends `-m MODULE ARGS`. processes: None for one per GPU, or two without
    GPUs.
    """
    processes = processes or num_gpus() or 2
    command = [sys.executable, "-m", "launch.start_processes"]
    command += ["--config_file", str(config_file(processes))]
    return [*command, "--num_processes", str(processes)]


def config_file(processes: int) -> Path:
    """Return the path of the accelerate configuration for `processes` processes."""
    if not num_gpus():
        return CONFIGS / "cpu.yaml"
    return CONFIGS / ("one_gpu.yaml" if processes == 1 else "ddp.yaml")


def mixed_precision(processes: int) -> str:
    """Return the mixed precision for `processes` processes, such as "no" or "bf16"."""
    return str(yaml.safe_load(config_file(processes).read_bytes())["mixed_precision"])


def memory_mb(name: str) -> float:
    """Return a field of /proc/self/status about the memory of this process, in MB.

    name: the field, such as "VmHWM" for the peak resident memory.
    """
    lines, start = Path("/proc/self/status").read_bytes().splitlines(), f"{name}:".encode()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(start))
    return kib * 1024 / 1e6
