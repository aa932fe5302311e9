"""One process a device: start-up through accelerate, and the proof that everyone agrees who takes part."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
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

from colortrain.distributed.rank_failures import rejoin_roll_call
from shards.errors import UserError, unknown

PRECISIONS = ("no", "bf16", "fp16")
DISTRIBUTED = ("NO", "MULTI_CPU", "MULTI_GPU", "DEEPSPEED")
_ADVICE = "launch with one of our files, for instance: accelerate launch --config_file launch/accelerate/cpu.yaml"


def make_accelerator(*, timeout: float = 1800, **options: Any) -> Accelerator:
    """The run's `Accelerator`, on CPU (gloo) where there is no GPU; a collective fails after `timeout` seconds.

    BatchNorm buffers are not broadcast before each forward: two forwards of one network in a step would trip over it.
    Raises `UserError` if the processes that were asked for are not the processes that take part.
    """
    handlers = [
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
    ]
    # accelerate still passes the old name of this option; both names work in every torch we support
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    rejoin_roll_call(timeout)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), kwargs_handlers=handlers, **options
    )
    check_world(accelerator.num_processes, accelerator.process_index)
    check_precision(accelerator.mixed_precision, accelerator.device)
    check_plugins(accelerator)
    return accelerator


def check_plugins(accelerator: Accelerator) -> None:
    """Raise `UserError` for what an accelerate configuration may ask for and the step does not do."""
    kind = str(accelerator.distributed_type.value)
    if kind not in DISTRIBUTED:
        raise UserError(
            f"distributed_type {kind} is not supported; use one of {', '.join(DISTRIBUTED)}"
        )
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise UserError("dynamo_backend must be 'no': give launch.train --compile instead")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UserError` for a --mixed_precision that would not do what it says on this device."""
    if precision not in PRECISIONS:
        raise unknown("mixed precision", precision, PRECISIONS)
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "fp16 needs a GPU (a CPU would train in fp32 and say nothing): --mixed_precision no or bf16"
        )


def check_trackers(names: Sequence[str]) -> None:
    """Raise `UserError` unless accelerate knows every tracker and its package is installed."""
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in LoggerType.list():
            raise unknown("tracker", name, [*LoggerType.list(), "none"])
        if name not in installed and name != "all":
            raise UserError(
                f"tracker {name} is not installed: pip install {name}, or --tracker none"
            )


def check_world(num_processes: int, rank: int) -> None:
    """Raise `UserError` unless accelerate, torch.distributed and the launcher's environment agree.

    Accelerate falls back to one silent process per rank, each training alone, when it cannot see a GPU or was given
    MULTI_CPU without a host file; the launcher's variables give it away.
    """
    asked = int(os.environ.get("WORLD_SIZE", "0"))
    joined = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if asked > 1 and not num_processes == joined == asked:
        raise UserError(f"{asked} processes were launched, but each would train alone; {_ADVICE}")
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    if asked == 0 and num_processes == 1 and on_cpu and "MASTER_PORT" in os.environ:
        raise UserError(f"several processes were asked for, but accelerate started one; {_ADVICE}")
    if num_processes != joined or (joined > 1 and rank != torch.distributed.get_rank()):
        raise UserError(
            f"accelerate counts {num_processes} processes, torch.distributed {joined}; {_ADVICE}"
        )
