"""From SLURM's variables to torch's: ranks, the first node, and a port that changes with every start."""

from __future__ import annotations

import pytest

from slurm.rendezvous import variables

TASK = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu-[007-008,12],cpu3",
}


def test_ranks_and_the_first_node() -> None:
    found = variables(TASK)
    port = found.pop("MASTER_PORT")
    assert 20000 <= int(port) <= 32000
    assert found == {
        "MASTER_ADDR": "gpu-007",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
    }


@pytest.mark.parametrize(
    ("seen", "rank"), [("", "3"), ("0,1,2,3", "3"), ("0", "0"), ("GPU-5d2a", "0")]
)
def test_a_task_that_sees_one_gpu_takes_it(seen: str, rank: str) -> None:
    """Torch and accelerate number the GPUs that a process sees."""
    assert (
        variables({**TASK, "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": seen})["LOCAL_RANK"]
        == rank
    )


def test_all_tasks_agree_on_a_port_and_every_start_has_another() -> None:
    starts = [{**TASK, "SLURM_RESTART_COUNT": str(count)} for count in range(20)]
    ports = [variables(start)["MASTER_PORT"] for start in starts]
    assert [variables({**start, "SLURM_PROCID": "0"})["MASTER_PORT"] for start in starts] == ports
    assert len(set(ports)) >= 19
    assert variables(TASK)["MASTER_PORT"] == ports[0]
