"""The plan of a development cluster: addresses, ports, its file, suitable folders."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import plan as plan_module
from slurm.devcluster.plan import MAX_PATH, Plan, check_folder, free_ports, load, save


def test_a_plan_is_saved_and_loaded(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path, nodes=3, gpus=0, accounting=False, base_port=12000)
    save(plan)
    assert load(tmp_path) == plan
    with pytest.raises(UserError, match=r"there is no cluster in .*: start one with"):
        load(tmp_path / "other")


def test_hosts_in_namespaces_have_addresses_of_their_own() -> None:
    plan = Plan(folder=Path("/c"), nodes=2)
    assert plan.uses_namespaces
    assert plan.node_names == ["node1", "node2"]
    assert [plan.node_address(name) for name in plan.node_names] == ["10.77.0.11", "10.77.0.12"]
    assert plan.head == ("head", "10.77.0.1")
    assert plan.port("slurmdbd") == 6819


def test_daemons_on_the_loopback_have_ports_of_their_own() -> None:
    plan = Plan(folder=Path("/c"), nodes=2, base_port=12000)
    assert not plan.uses_namespaces
    assert plan.node_names == ["127.0.0.11", "127.0.0.12"]
    ports = [plan.port(name) for name in ("slurmctld", "slurmdbd", "mariadbd")]
    assert ports == [12000, 12001, 12002]


@pytest.mark.parametrize(
    ("resolved", "address"), [("127.0.1.1", "127.0.1.1"), ("192.168.0.9", "127.0.0.1")]
)
def test_daemons_bind_to_the_loopback(
    monkeypatch: pytest.MonkeyPatch, resolved: str, address: str
) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: resolved)
    assert plan_module.loopback_address() == address


def test_ports_in_use_are_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = iter([10000, 10100, 10200])
    monkeypatch.setattr(plan_module.random, "randrange", lambda *args: next(candidates))
    monkeypatch.setattr(plan_module, "_is_free", lambda port: port not in (10004, 10100))
    assert free_ports(5) == 10200


def test_unsuitable_folders_are_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    holds_cluster, holds_file = tmp_path / "cluster", tmp_path / "files"
    for folder in (holds_cluster, holds_file):
        folder.mkdir()
    save(Plan(folder=holds_cluster))
    (holds_file / "photograph.png").touch()
    refused = {
        holds_cluster: "holds a cluster",
        holds_file: "is not an empty folder",
        Path("/tmp/a b"): "no spaces",
        Path("/" + "x" * MAX_PATH): "too long for the path of a socket",
    }
    for folder, message in refused.items():
        with pytest.raises(UserError, match=message):
            check_folder(folder)
