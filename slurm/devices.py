"""Choose the device and the precision of a task, as variables that accelerate reads."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

_BF16_CAPABILITY = (8, 0)  # Ampere; older GPUs emulate bf16, and cuDNN lacks it there


def accelerate_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of accelerate to add to those of a SLURM task.

    `environment` are the variables of the task. Those that it has are not returned, so
    that the lines of `setup` in a site file take precedence. The others are

    - ACCELERATE_MIXED_PRECISION: "bf16" if all GPUs that the task sees compute in it,
      else "no";
    - ACCELERATE_USE_CPU: "true" if SLURM gave the task no GPU and it sees none; "false"
      if SLURM gave it GPUs, so that it refuses to train without them.
    """
    variables = {"ACCELERATE_MIXED_PRECISION": "bf16" if _has_bf16() else "no"}
    if environment.get("SLURM_GPUS_ON_NODE", "0") != "0":
        variables["ACCELERATE_USE_CPU"] = "false"
    elif not torch.cuda.is_available():
        variables["ACCELERATE_USE_CPU"] = "true"
    return {name: value for name, value in variables.items() if name not in environment}


def export_variables() -> None:
    """Add accelerate's variables to this process's environment."""
    os.environ.update(accelerate_variables(os.environ))


def describe_devices() -> str:
    """Return a text with the GPUs that this process sees and its mixed precision.

    Example: "4 x NVIDIA A100-SXM4-80GB, mixed precision: bf16". The precision is the
    value of ACCELERATE_MIXED_PRECISION, which must be set.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = f"{count} x {torch.cuda.get_device_name(0)}" if count else "no GPU"
    return f"{gpus}, mixed precision: {os.environ['ACCELERATE_MIXED_PRECISION']}"


def _has_bf16() -> bool:
    """Return whether all GPUs that this process sees compute in bf16 without emulation.

    `torch.cuda.is_bf16_supported` also accepts emulation. All GPUs count, so that the
    processes of a node agree.
    """
    if not torch.cuda.is_available():
        return False
    if torch.version.hip:
        return True
    indices = range(torch.cuda.device_count())
    return all(torch.cuda.get_device_capability(index) >= _BF16_CAPABILITY for index in indices)
