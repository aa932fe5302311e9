"""Hosts in namespaces: commands, addresses and the environment of their processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import hosts
from slurm.devcluster.configuration import MARK
from slurm.devcluster.plan import Plan


def test_a_hardware_address_is_derived_from_the_ip_address() -> None:
    """The second-lowest bit of the first byte marks a locally administered address."""
    assert hosts.hardware_address("10.77.0.11") == "02:00:0a:4d:00:0b"


def test_processes_are_marked_and_free_of_an_outer_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURMLIKE", "kept")
    environment = hosts.environment(Plan(folder=Path("/c")))
    assert "SLURM_JOB_ID" not in environment
    assert "SQUEUE_FORMAT" not in environment
    assert environment["SLURMLIKE"] == "kept"
    assert environment[MARK] == "/c"
    assert environment["SLURM_CONF"] == "/c/etc/slurm.conf"


def test_a_host_is_on_while_its_init_process_lives(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path)
    (tmp_path / "run").mkdir()
    assert not hosts.is_on(plan, "node1")
    command = ["sh", "-c", "sleep 100; :", "devcluster-host", "node1", str(tmp_path)]
    with subprocess.Popen(command) as process:
        (tmp_path / "run" / "node1.init").write_text(str(process.pid))
        # a new process has no command line for an instant
        hosts.wait_until("the init process", lambda: hosts.is_on(plan, "node1"), 20)
        assert hosts.init_pid(plan, "node1") == process.pid
        enter = ["nsenter", "-t", str(process.pid), "--net"]
        inside = hosts.command_on_host(plan, "node1", ["hostname"])
        assert inside == [*enter, "--uts", "--mount", "--pid", "--", "hostname"]
        network = hosts.command_on_host(plan, "node1", ["hostname"], network_only=True)
        assert network == [*enter, "--", "hostname"]
        hosts.power_off(plan, "node1")
    assert not hosts.is_on(plan, "node1")
    with pytest.raises(UserError, match="node1 is off: run `colortrain devcluster boot node1"):
        hosts.init_pid(plan, "node1")


def test_a_process_that_reused_the_id_is_not_the_host(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "node1.init").write_text(str(os.getpid()))
    assert not hosts.is_on(Plan(folder=tmp_path), "node1")


def test_on_the_loopback_commands_run_as_they_are(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path, base_port=12000)
    assert hosts.command_on_host(plan, "127.0.0.11", ["hostname"]) == ["hostname"]
    (tmp_path / "log").mkdir()
    assert hosts.run(plan, ["sh", "-c", f"echo ${MARK}; exit 3"], "x.log") == 3
    assert (tmp_path / "log" / "x.log").read_text() == f"{tmp_path}\n"


def test_a_timeout_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("1\n2\n3\n4\n")
    with pytest.raises(
        UserError, match=r"^timed out after 0 s waiting for a daemon, see .*: 2; 3; 4$"
    ):
        hosts.wait_until("a daemon", lambda: False, 0, log)
    hosts.wait_until("a daemon", lambda: True, 0)
