"""Site files: their fields, error messages, and the checks against SLURM."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.cluster import EXAMPLES, Cluster, load_cluster, resolve_on_site
from tests.support.slurm_commands import SINFO, install_commands


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    cluster = load_cluster(path)
    assert cluster.partition
    assert cluster.world_size == cluster.nodes * cluster.tasks_per_node > 1


def test_one_process_per_gpu_or_as_many_as_the_site_file_says() -> None:
    assert Cluster(gpus=4, processes=9).tasks_per_node == 4
    assert Cluster(nodes=3, processes=9).world_size == 27


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin = 'gpu'", "unknown field 'partitoin'; valid, nearest first: partition"),
        ("nodes = 'two'", "nodes: must be a whole number, got 'two'"),
        ("nodes = 0", "nodes = 0: must be at least 1"),
        ("gpus = -1", "gpus = -1: must be at least 0"),
        ("cpus = -1", "cpus = -1: must be at least 0"),
        ("minutes = 2\nwarning = 120", "warning = 120 (seconds) must be shorter than minutes = 2"),
        ("options = ['reservation=x']", "'reservation=x' must start with --"),
        ("[container]\nmounts = []", "container: missing image"),
        ("nodes = ", "is not valid TOML"),
    ],
)
def test_errors_name_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_cluster(path)
    assert message in str(error.value)
    assert "site.toml" in str(error.value)


def test_the_error_about_a_missing_file_names_the_examples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="copy and edit one of the examples in"):
        load_cluster(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(partition="gup"), "unknown partition 'gup'; valid, nearest first: gpu, cpu"),
        (Cluster(nodes=6), "nodes: partition gpu has 5 nodes, but the site file requests 6"),
        (Cluster(gpus=9), "gpus: partition gpu has 8 GPUs per node, but the site file requests 9"),
        (Cluster(gpus=8, cpus=17), "cpus: partition gpu has 128 CPUs per node"),
        (Cluster(memory=501), "memory: partition gpu has 512000 MB per node"),
        (Cluster(minutes=3631), "minutes: partition gpu has 3630 minutes"),
        (Cluster(constraint="nvme&h100"), "unknown constraint of partition gpu 'h100'"),
        (Cluster(account="vison"), "unknown account 'vison'; valid, nearest first: vision"),
        (Cluster(qos="fast"), "unknown qos 'fast'; valid, nearest first: normal"),
    ],
)
def test_requests_that_exceed_the_site_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, message: str
) -> None:
    sacctmgr = 'case "$*" in *assoc*) echo vision ;; *) echo normal ;; esac'
    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO, "sacctmgr": sacctmgr})
    resolve_on_site(
        Cluster(nodes=5, gpus=8, cpus=16, minutes=3630, constraint="a100|nvme", account="vision")
    )
    with pytest.raises(UserError) as error:
        resolve_on_site(cluster)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cluster", "cpus"),
    [
        (Cluster(gpus=8), 16),  # all GPUs of a node: all of its CPUs
        (Cluster(gpus=2), 10),  # also on a node with 6 GPUs and 64 CPUs
        (Cluster(gpus=1, nodes=5), 10),  # leaves the other GPUs of the node their CPUs
        (Cluster(gpus=8, cpus=3), 3),
        (Cluster(processes=4), 1),
        (Cluster(partition="cpu", cpus=8), 8),
    ],
)
def test_a_gpu_gets_its_part_of_the_cpus_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, cpus: int
) -> None:
    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO})
    resolved = resolve_on_site(cluster)
    assert resolved == dataclasses.replace(cluster, cpus=cpus)


def test_more_gpus_than_cpus_leave_one_cpu_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "echo 'mig|mig*|1|4|64000|gpu:1g.10gb:7|(null)|infinite'"
    install_commands(tmp_path, monkeypatch, {"sinfo": line})
    assert resolve_on_site(Cluster(gpus=1)).cpus == 1


def test_a_dry_run_without_slurm_checks_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_on_site(Cluster(gpus=4), required=False) == Cluster(gpus=4)
    assert resolve_on_site(Cluster(), required=False) == Cluster(cpus=1)
    assert "the site file is not checked" in capsys.readouterr().err
    with pytest.raises(UserError, match="run this on a login node"):
        resolve_on_site(Cluster(gpus=4))
