"""torch's variables from SLURM's: ranks, the first node, a port per start."""

from __future__ import annotations

import os

import pytest

from slurm.rendezvous import export_variables, torch_variables

TASK = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu-[007-008,12],cpu3",
}


def test_ranks_and_the_first_node() -> None:
    variables = torch_variables(TASK)
    port = variables.pop("MASTER_PORT")
    assert 20000 <= int(port) <= 32000
    assert variables == {
        "MASTER_ADDR": "gpu-007",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
    }


@pytest.mark.parametrize(
    ("visible", "rank"), [("", "3"), ("0,1,2,3", "3"), ("0", "0"), ("GPU-5d2a", "0")]
)
def test_the_local_rank_counts_the_visible_gpus(visible: str, rank: str) -> None:
    """torch and accelerate number the GPUs that a process sees."""
    task = {**TASK, "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": visible}
    assert torch_variables(task)["LOCAL_RANK"] == rank


def test_all_tasks_agree_on_a_port_that_differs_between_starts() -> None:
    starts = [{**TASK, "SLURM_RESTART_COUNT": str(count)} for count in range(20)]
    ports = [torch_variables(start)["MASTER_PORT"] for start in starts]
    first_rank = [torch_variables({**start, "SLURM_PROCID": "0"}) for start in starts]
    assert [variables["MASTER_PORT"] for variables in first_rank] == ports
    assert len(set(ports)) >= 19
    assert torch_variables(TASK)["MASTER_PORT"] == ports[0]


def test_exported_variables_replace_inherited_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    for name in torch_variables(TASK):
        monkeypatch.setenv(name, "of an outer job")
    export_variables()
    assert os.environ["RANK"] == "5"
    assert os.environ["MASTER_ADDR"] == "gpu-007"
