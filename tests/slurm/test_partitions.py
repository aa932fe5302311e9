"""What sinfo prints about partitions, and the number of GPUs in its lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.partitions import count_gpus, query_partitions, slurm_available
from tests.support.slurm_commands import SINFO, install_commands


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        # of sinfo and of scontrol's "Gres="
        ("(null)", 0),
        ("N/A", 0),
        ("gpu:4", 4),
        ("gpu", 1),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:l4:4(S:1,3,5,7),ssd:1", 4),
        ("gpu:nvidia_a100-sxm4-40gb:8(S:1,3,5,7)", 8),
        ("gpu:nvidia_a100_3g.39gb:2", 2),
        ("gpu:1g.10gb:7", 7),
        ("gpu:3090:4", 4),
        ("gpu:a100:no_consume:4", 4),
        ("gpu:a100:4(S:0),gpu:v100:2(S:1)", 6),
        ("gpu:1g.10gb:2,gpu:a100:1", 3),
        ("gpu:mi100:8(S:1,3,5,7),gpu:mi210:1(S:5)", 9),
        ("mps:400,shard:gpu:16,bandwidth:lustre:no_consume:4G,gpu:tesla:2", 2),
        # of sinfo's GresUsed
        ("gpu:l4:3(IDX:0-2),ssd:0", 3),
        ("gpu:h100:0(IDX:N/A)", 0),
        # of scontrol's "CfgTRES=", with or without the types
        ("cpu=128,mem=1T,billing=128,gres/gpu=4", 4),
        ("cpu=128,mem=1T,gres/gpu=6,gres/gpu:a100=4,gres/gpu:1g.10gb=2", 6),
        ("cpu=32,gres/gpu:3090=4,gres/gpu:h200=2,gres/gpumem=80G", 6),
    ],
)
def test_gpus_are_counted_in_all_formats_of_slurm(gres: str, gpus: int) -> None:
    assert count_gpus(gres) == gpus


def test_partitions_list_their_kinds_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO})
    partitions = query_partitions()
    assert set(partitions) == {"gpu", "cpu"}
    gpu, cpu = partitions["gpu"], partitions["cpu"]
    assert (gpu.default, gpu.nodes, gpu.megabytes) == (True, 5, 512000)
    assert gpu.node_kinds == {(64, 6), (128, 8)}
    assert (gpu.cpus, gpu.gpus, gpu.features) == (128, 8, {"a100", "nvme"})
    assert gpu.minutes == (2 * 24 + 12) * 60 + 30
    assert (cpu.default, cpu.minutes, cpu.cpus, cpu.gpus) == (False, None, 32, 0)


def test_nodes_that_differ_are_listed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --exact, SLURM 22.05 prints the CPUs of the smallest node of a line."""
    sinfo = """\
case "$*" in
*--exact*) echo 'gpu|gpu*|1|8|4000|gpu:2|(null)|infinite'
    echo 'gpu|gpu*|1|16|4000|gpu:2|(null)|infinite' ;;
*) echo 'gpu|gpu*|2|8+|4000|gpu:2|(null)|infinite' ;;
esac"""
    install_commands(tmp_path, monkeypatch, {"sinfo": sinfo})
    gpu = query_partitions()["gpu"]
    assert (gpu.nodes, gpu.cpus) == (2, 16)
    assert gpu.node_kinds == {(8, 2), (16, 2)}


def test_a_failing_command_gives_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = "echo first >&2; echo 'sinfo: error: no controller' >&2; exit 1"
    install_commands(tmp_path, monkeypatch, {"sinfo": failure})
    with pytest.raises(UserError, match=r"^sinfo: error: no controller$"):
        query_partitions()


def test_without_slurm_the_error_points_to_a_login_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm_available()
    with pytest.raises(UserError, match=r"sinfo not found\): run this on a login node"):
        query_partitions()
