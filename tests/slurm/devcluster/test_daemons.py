"""The commands that start the daemons, recorded instead of run."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import daemons
from slurm.devcluster.plan import Plan


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of all daemons that were started."""
    started: list[list[str]] = []

    def run(plan: Plan, command: list[str], log: str) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(daemons, "run", run)
    monkeypatch.setattr(daemons, "program", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(daemons, "wait_until", lambda *args: None)
    return started


def test_a_node_on_the_loopback_is_named(commands: list[list[str]]) -> None:
    plan = Plan(folder=Path("/c"), base_port=12000)
    daemons.start_node(plan, "127.0.0.11")
    assert commands[0][-2:] == ["-N", "127.0.0.11"]
    assert "-b" not in commands[0]


def test_a_booted_node_reports_its_reboot(commands: list[list[str]]) -> None:
    daemons.start_node(Plan(folder=Path("/c"), base_port=12000), "127.0.0.11", rebooted=True)
    assert commands[0][:2] == ["/c/sbin/slurmd", "-b"]


def test_the_database_exists_before_the_daemons_that_use_it(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    """mariadbd deletes the temporary tables in its TMPDIR, so it gets its own."""
    daemons.start_accounting(Plan(folder=tmp_path, base_port=12000))
    order = [
        next(name for name in ("mariadb-install-db", "mariadbd", "slurmdbd") if name in text)
        for text in (" ".join(command) for command in commands)
    ]
    assert order == ["mariadb-install-db", "mariadbd", "slurmdbd"]
    for command in commands[:2]:
        assert f"TMPDIR={tmp_path}/tmp" in command
    assert "--port=12002" in commands[1]


def test_daemons_are_linked_under_their_plain_names(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "program", lambda name: f"/usr/sbin/{name}-wlm")
    daemons.link_programs(Plan(folder=tmp_path))
    links = {path.name: str(path.readlink()) for path in (tmp_path / "sbin").iterdir()}
    assert links == {
        name: f"/usr/sbin/{name}-wlm" for name in ("slurmctld", "slurmd", "slurmstepd")
    }


def test_a_daemon_that_does_not_start_gives_the_end_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "slurmd-127.0.0.11.out").write_text("x" * 400 + "fatal: no key\n")
    monkeypatch.setattr(daemons, "run", lambda plan, command, log: 1)
    with pytest.raises(UserError, match=r"did not start, see .*: x+fatal: no key$") as error:
        daemons.start_node(Plan(folder=tmp_path, base_port=12000), "127.0.0.11")
    assert "x" * 301 not in str(error.value)
