"""Set the environment variables of torch.distributed from those of a SLURM job."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

from submitit.slurm.slurm import _parse_node_list

_PORTS = (20000, 32000)  # below the range that the kernel uses for outgoing connections


def torch_variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of torch.distributed for one SLURM task.

    They are MASTER_ADDR, MASTER_PORT, RANK, LOCAL_RANK, WORLD_SIZE and
    LOCAL_WORLD_SIZE; `slurm` are SLURM's variables of the task. The port differs
    between jobs and between starts of a job, so that a port in use by another program
    does not block every start of the job.
    """
    generator = random.Random(f"{slurm['SLURM_JOB_ID']}/{slurm.get('SLURM_RESTART_COUNT', '0')}")
    world_size, nodes = int(slurm["SLURM_NTASKS"]), int(slurm["SLURM_JOB_NUM_NODES"])
    return {
        "MASTER_ADDR": _parse_node_list(slurm["SLURM_JOB_NODELIST"])[0],
        "MASTER_PORT": str(generator.randint(*_PORTS)),
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": _local_rank(slurm),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size // nodes),
    }


def _local_rank(slurm: Mapping[str, str]) -> str:
    """Return the index of the task's GPU among the GPUs that the task can see.

    Every task sees either all GPUs of the node or, with `--gpus-per-task`, only its
    own.
    """
    visible = slurm.get("CUDA_VISIBLE_DEVICES", "")
    local_id = slurm["SLURM_LOCALID"]
    return str(int(local_id) % len(visible.split(","))) if visible else local_id


def export_variables() -> None:
    """Set the variables of torch.distributed in this process's environment.

    They replace those inherited from an outer job or a container.
    """
    os.environ.update(torch_variables(os.environ))
