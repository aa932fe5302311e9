"""How the processes of a job find each other: torch's variables, from SLURM's own."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

from submitit.slurm.slurm import _parse_node_list

_PORTS = (20000, 32000)  # below the range from which connections draw theirs


def variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE and their local sisters, from the variables of one task.

    The port differs from job to job and from start to start: one that stayed busy must not stop a job for ever.
    """
    drawn = random.Random(f"{slurm['SLURM_JOB_ID']}/{slurm.get('SLURM_RESTART_COUNT', '0')}")
    world, nodes = int(slurm["SLURM_NTASKS"]), int(slurm["SLURM_JOB_NUM_NODES"])
    return {
        "MASTER_ADDR": _parse_node_list(slurm["SLURM_JOB_NODELIST"])[0],
        "MASTER_PORT": str(drawn.randint(*_PORTS)),
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": _device(slurm),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world // nodes),
    }


def _device(slurm: Mapping[str, str]) -> str:
    """Which of the GPUs that a task sees is its own: all tasks see all, or (`--gpus-per-task`) each sees one alone."""
    seen = slurm.get("CUDA_VISIBLE_DEVICES", "")
    return (
        str(int(slurm["SLURM_LOCALID"]) % len(seen.split(","))) if seen else slurm["SLURM_LOCALID"]
    )


def export() -> None:
    """Put them into this process's environment, over whatever an outer job or a container left there."""
    os.environ.update(variables(os.environ))
