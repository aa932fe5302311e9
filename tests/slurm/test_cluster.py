"""Site files: their fields, error messages, and the checks against SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import cluster as cluster_module
from slurm.cluster import EXAMPLES, Cluster, check_against_site, load_cluster, query_partitions
from tests.support.slurm_commands import install_commands


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


# Columns: partition|default|nodes|CPUs|MB|GRES|features|time limit.
SINFO = """\
cat <<'END'
gpu|gpu*|2|64+|256000|gpu:a100:4(S:0-1),gpu:v100:2|a100,nvme|2-12:30:00
gpu|gpu*|3|128|512000|gpu:8|(null)|2-12:30:00
cpu|cpu|9|32|64000|(null)|(null)|infinite
END"""


def test_partitions_have_the_largest_values_of_their_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO})
    partitions = query_partitions()
    assert set(partitions) == {"gpu", "cpu"}
    gpu = partitions["gpu"]
    assert (gpu.default, gpu.nodes, gpu.cpus, gpu.megabytes) == (True, 5, 128, 512000)
    assert (gpu.gpus, gpu.features) == (8, {"a100", "nvme"})
    assert gpu.minutes == (2 * 24 + 12) * 60 + 30
    assert (partitions["cpu"].default, partitions["cpu"].minutes) == (False, None)


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
    check_against_site(
        Cluster(nodes=5, gpus=8, cpus=16, minutes=3630, constraint="a100|nvme", account="vision")
    )
    with pytest.raises(UserError) as error:
        check_against_site(cluster)
    assert message in str(error.value)


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
    assert not cluster_module.slurm_available()
    with pytest.raises(UserError, match=r"sinfo not found\): run this on a login node"):
        query_partitions()
