"""Choose between the GPUs and the CPU; a GPU that cannot be used is an error.

Without this check, a driver that is too old for torch would let a run train on the CPU,
because torch then reports that there is no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from shards.errors import PermanentError

# They exist if a driver for GPUs is loaded: NVIDIA's on Linux and in WSL, and AMD's. On
# many laptops AMD's driver runs a GPU that only drives the display.
_NVIDIA_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")
_AMD_DRIVER = ("/dev/kfd",)
# By accelerate launch; of several processes, it sets ACCELERATE_USE_CPU for none.
_SET_BY_LAUNCHER = ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_USE_DEEPSPEED")
_TRUE = ("1", "true", "yes", "on", "t", "y")  # what accelerate accepts
_NO_DEVICE = ("", "NoDevFiles")  # SLURM sets the second one for jobs without GPUs


def num_gpus() -> int:
    """Return the number of GPUs to train on, 0 if training is to use the CPU.

    Raises PermanentError if torch cannot use CUDA and the CPU was not requested.
    """
    if is_cpu_requested(os.environ):
        return 0
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    check_cpu_is_meant(os.environ)
    return 0


def default_device() -> torch.device:
    """Return the GPU if training is to use GPUs (see `num_gpus`), else the CPU."""
    return torch.device("cuda" if num_gpus() else "cpu")


def is_cpu_requested(variables: Mapping[str, str]) -> bool:
    """Return whether environment variables request the CPU, even if there are GPUs.

    These are ACCELERATE_USE_CPU and, unless that is set, CUDA_VISIBLE_DEVICES=-1, as
    with launch/accelerate/cpu.yaml.
    """
    use_cpu = variables.get("ACCELERATE_USE_CPU", "")
    if use_cpu:
        return use_cpu.lower() in _TRUE
    return variables.get("CUDA_VISIBLE_DEVICES", "").startswith("-1")


def check_cpu_is_meant(variables: Mapping[str, str]) -> None:
    """Raise PermanentError if torch has no CUDA although a GPU is to be used.

    That is the case if `accelerate launch` or SLURM started this process with GPUs, or
    if this machine has a driver for GPUs. `variables` are those of the environment.
    """
    launched = any(name in variables for name in ("ACCELERATE_USE_CPU", *_SET_BY_LAUNCHER))
    hidden = variables.get("CUDA_VISIBLE_DEVICES", "0") in _NO_DEVICE
    if launched or (has_driver() and not hidden):
        advice = "export ACCELERATE_USE_CPU=true"
        if any(name in variables for name in _SET_BY_LAUNCHER):
            advice = "give accelerate launch the configuration launch/accelerate/cpu.yaml"
        raise PermanentError(f"no GPU can be used: {cuda_error()}; to use the CPU, {advice}")


def has_driver() -> bool:
    """Return whether a driver is loaded for GPUs on which torch could compute."""
    files = _AMD_DRIVER if torch.version.hip else _NVIDIA_DRIVER
    return any(Path(file).exists() for file in files)


def cuda_error() -> str:
    """Return what torch says about why it cannot use CUDA, in one line."""
    # `torch.cuda.is_available` gives no reason, or only once, as a warning.
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).partition("Please ")[0].split())
        return f"torch {torch.__version__} says {reason.rstrip('.')!r}"
    return f"torch {torch.__version__} finds no GPU"
