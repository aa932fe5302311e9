"""Stopping a cluster and injecting faults, without SLURM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import lifecycle
from slurm.devcluster.configuration import MARK
from slurm.devcluster.hosts import wait_until
from slurm.devcluster.plan import Plan, save


def marked_process(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: str(folder)})
    # a new process has no environment for an instant
    wait_until("the mark", lambda: process.pid in lifecycle.cluster_processes(folder), 20)
    return process


def test_stopping_kills_the_marked_processes_and_deletes_the_folder(tmp_path: Path) -> None:
    """Processes of another cluster and a folder without a cluster are kept."""
    folder, other = tmp_path / "c", tmp_path / "other"
    for path in (folder, other):
        path.mkdir()
    save(Plan(folder=folder))
    with marked_process(folder) as own, marked_process(other) as foreign:
        try:
            assert lifecycle.cluster_processes(folder) == [own.pid]
            assert lifecycle.stop_cluster(folder)
            assert own.wait(timeout=20) == -9
            assert foreign.poll() is None
        finally:
            foreign.kill()
    assert not folder.exists()
    assert not lifecycle.stop_cluster(folder)
    assert not lifecycle.stop_cluster(other)
    assert other.exists()


def test_a_process_never_stops_itself_or_its_ancestors() -> None:
    """`down` may be run from a shell that has sourced the cluster's environment."""
    assert {os.getpid(), os.getppid()} <= lifecycle._own_and_ancestor_pids()


def test_a_failed_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "c"
    processes = []

    def start_munged(plan: Plan) -> None:
        processes.append(marked_process(plan.folder))
        raise UserError("munged did not start")

    monkeypatch.setattr(lifecycle.daemons, "link_programs", lambda plan: None)
    monkeypatch.setattr(lifecycle.daemons, "start_munged", start_munged)
    with pytest.raises(UserError, match="munged did not start"):
        lifecycle.start_cluster(Plan(folder=folder, base_port=12000))
    assert processes[0].wait(timeout=20) == -9
    assert (folder / "log").is_dir()  # for whoever reads the error


def test_events_that_cannot_be_injected_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(folder=tmp_path, nodes=2)
    with pytest.raises(UserError, match="unknown node 'nod2'; valid, nearest first: node2"):
        lifecycle.inject_event(plan, "boot", "nod2")
    monkeypatch.setattr(lifecycle.hosts, "is_on", lambda plan, node: True)
    with pytest.raises(
        UserError, match="node2 is on already: run `colortrain devcluster power-off"
    ):
        lifecycle.inject_event(plan, "boot", "node2")
    loopback = Plan(folder=tmp_path, nodes=2, base_port=12000)
    with pytest.raises(UserError, match="unplug requires nodes that are hosts in namespaces"):
        lifecycle.inject_event(loopback, "unplug", "127.0.0.11")


@pytest.mark.parametrize(("event", "state"), [("unplug", "down"), ("plug", "up")])
def test_unplugging_sets_the_link_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str, state: str
) -> None:
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(
        lifecycle.hosts, "set_link", lambda plan, node, state: calls.append((node, state))
    )
    lifecycle.inject_event(Plan(folder=tmp_path, nodes=2), event, "node2")
    assert calls == [("node2", state)]
