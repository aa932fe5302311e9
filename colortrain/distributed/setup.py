"""Set up accelerate in each process, and check that all processes take part."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DynamoBackend,
    InitProcessGroupKwargs,
    LoggerType,
    parse_flag_from_env,
)

from colortrain.distributed.device import num_gpus
from colortrain.distributed.rank_failures import init_process_group_after_restart
from shards.errors import UserError, unknown

PRECISIONS = ("no", "bf16", "fp16")
DISTRIBUTED_TYPES = ("NO", "MULTI_CPU", "MULTI_GPU", "DEEPSPEED")
# The variables from which accelerate and torch read the number of processes and the
# rank of this one: those of torchrun, PMI (MPICH, Intel MPI), Open MPI and MVAPICH2.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_ADVICE = (
    "use one of the configurations in launch/accelerate/, for instance "
    "accelerate launch --config_file launch/accelerate/cpu.yaml"
)


def make_accelerator(
    *, timeout: float = 1800, announced: bool = True, **options: Any
) -> Accelerator:
    """Return the `Accelerator` of a run, on the CPU (gloo) if there is no GPU.

    If `announced`, calls `announce_start`. A collective operation fails after `timeout`
    seconds; `options` are passed to `Accelerator`. Raises UserError if the processes do
    not form one group, if a launcher's variables or accelerate's configuration cannot
    be used, or if a GPU cannot be used and the CPU was not requested.
    """
    check_launch_variables(os.environ)
    on_cpu = num_gpus() == 0
    # Broadcasting BatchNorm's buffers before each forward pass would break the second
    # forward pass of a network within a step.
    handlers = [
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
    ]
    # accelerate uses old names of torch, which work in all supported versions; the
    # second one on GPUs only
    for name in ("`broadcast_buffers`", "`torch.distributed.all_gather_into_tensor`"):
        warnings.filterwarnings("ignore", message=f"{name} is deprecated")
    try:
        init_process_group_after_restart(timeout)
        accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=handlers, **options)
    except torch.distributed.DistError as error:
        raise UserError(
            f"the processes of this run did not find each other ({str(error).splitlines()[0]}): "
            "start all of them, or unset WORLD_SIZE and RANK if no launcher started this process"
        ) from None
    check_world_size(accelerator.num_processes, accelerator.process_index)
    check_precision(accelerator.mixed_precision, accelerator.device)
    check_plugins(accelerator)
    if announced:
        announce_start(accelerator)
    return accelerator


def announce_start(accelerator: Accelerator) -> None:
    """Print, in the first process, the line that `describe_start` returns."""
    if accelerator.is_main_process:
        _print_once(describe_start(accelerator))


def describe_start(accelerator: Accelerator) -> str:
    """Return a line with the device, the mixed precision and the number of processes.

    Example: "NVIDIA H100 80GB HBM3, mixed precision bf16, 8 processes".
    """
    device, count = accelerator.device, accelerator.num_processes
    threads = torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU with {threads} thread{'s' if threads > 1 else ''} per process"
    )
    processes = f"{count} process{'es' if count > 1 else ''}"
    return f"{name}, mixed precision {accelerator.mixed_precision}, {processes}"


@cache
def _print_once(line: str) -> None:
    # benchmarks make several accelerators in one process
    print(line, file=sys.stderr, flush=True)


def check_launch_variables(variables: Mapping[str, str]) -> None:
    """Raise UserError if a launcher's variables are incomplete or not numbers."""
    # Such variables may be left over from another program or an interactive job.
    # accelerate would then wait for processes that were never started.
    for name in (*_SIZES, *_RANKS, "LOCAL_RANK"):
        value = variables.get(name, "0")
        if not value.removeprefix("-").isdigit():
            raise UserError(f"{name}={value!r} in the environment is not a number: unset {name}")
    launched = [name for name in _SIZES if int(variables.get(name, "1")) > 1]
    launched += ["LOCAL_RANK"] if int(variables.get("LOCAL_RANK", "-1")) >= 0 else []
    if not launched:
        return
    missing = [] if "MASTER_ADDR" in variables else ["MASTER_ADDR"]
    missing += [] if any(name in variables for name in _RANKS) else ["RANK"]
    if missing:
        name = launched[0]
        raise UserError(
            f"the environment has {name}={variables[name]} but no {' and no '.join(missing)}, so "
            f"no launcher started this process: unset {name}, or {_ADVICE}"
        )


def check_plugins(accelerator: Accelerator) -> None:
    """Raise UserError if accelerate's configuration requests an unsupported feature."""
    kind = str(accelerator.distributed_type.value)
    if kind not in DISTRIBUTED_TYPES:
        raise UserError(
            f"distributed_type {kind} is not supported; use one of {', '.join(DISTRIBUTED_TYPES)}"
        )
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise UserError("dynamo_backend must be 'no': use `colortrain train --compile` instead")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UserError unless `device` supports this value of --mixed_precision."""
    if precision not in PRECISIONS:
        raise unknown("mixed precision", precision, PRECISIONS)
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "fp16 requires a GPU (a CPU would silently train in fp32): "
            "use --mixed_precision no or bf16"
        )


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError unless each named experiment tracker is supported and installed.

    names: trackers of accelerate, for instance "tensorboard".
    """
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in LoggerType.list():
            raise unknown("tracker", name, [*LoggerType.list(), "none"])
        if name not in installed and name != "all":
            raise UserError(
                f"tracker {name} is not installed: pip install {name}, or use --tracker none"
            )


def check_world_size(num_processes: int, rank: int) -> None:
    """Raise UserError unless accelerate, torch.distributed and the launcher agree.

    `num_processes` and `rank` are the values that accelerate reports.
    """
    # accelerate silently falls back to independent single processes if it finds no GPU,
    # or if it is configured as MULTI_CPU without a host file. Each process would then
    # train alone. The launcher's environment variables reveal this.
    launched = int(os.environ.get("WORLD_SIZE", "0"))
    joined = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if launched > 1 and not num_processes == joined == launched:
        raise UserError(
            f"{launched} processes were launched, but each would train alone; {_ADVICE}"
        )
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    if launched == 0 and num_processes == 1 and on_cpu and "MASTER_PORT" in os.environ:
        raise UserError(f"several processes were requested, but accelerate started one; {_ADVICE}")
    joined_rank = torch.distributed.get_rank() if joined > 1 else 0
    if num_processes != joined or (joined > 1 and rank != joined_rank):
        raise UserError(
            f"accelerate reports rank {rank} of {num_processes}, "
            f"torch.distributed rank {joined_rank} of {joined}: {_ADVICE}"
        )
