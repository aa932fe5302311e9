"""The options of `colortrain devcluster` and their errors, without SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import __main__ as devcluster
from slurm.devcluster.plan import Plan, save


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all programs, which allows no namespaces."""
    monkeypatch.setattr(devcluster.programs, "check", lambda accounting: None)
    monkeypatch.setattr(devcluster.hosts, "namespaces_work", lambda *, user: False)


def make_plan(folder: Path, *options: str) -> Plan:
    args = devcluster.make_parser().parse_args(["up", *options])
    return devcluster.make_plan(args, folder)


def test_options_become_a_plan(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "--nodes", "2", "--cpus", "3", "--gpus", "0", "--no-accounting")
    assert (plan.nodes, plan.cpus, plan.gpus, plan.accounting) == (2, 3, 0, False)
    assert (plan.user_signal, plan.grace) == (True, 5)
    assert not plan.uses_namespaces


@pytest.mark.parametrize(("user", "in_user_namespace"), [(False, False), (True, True)])
def test_nodes_are_hosts_where_namespaces_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: bool, in_user_namespace: bool
) -> None:
    """root creates them directly, other users inside a user namespace."""
    allowed = user

    def namespaces_work(*, user: bool) -> bool:
        return user == allowed

    monkeypatch.setattr(devcluster.hosts, "namespaces_work", namespaces_work)
    monkeypatch.setattr(devcluster.os, "getuid", lambda: 1000 if allowed else 0)
    plan = make_plan(tmp_path)
    assert plan.uses_namespaces
    assert plan.user_namespace == in_user_namespace
    assert not make_plan(tmp_path, "--hosts", "loopback").uses_namespaces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "9"], "--gpus 9: must be from 0 to 7"),
        (["--hosts", "namespaces"], "--hosts namespaces: this machine does not allow this user"),
        (["--nodes", "0"], "argument --nodes"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        make_plan(tmp_path, *options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cluster_that_does_not_respond_has_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Plan(folder=tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sinfo").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    (tmp_path / "bin" / "sinfo").chmod(0o755)
    assert devcluster.main(["status", "--dir", str(tmp_path)]) == 1
    expected = f"the cluster in {tmp_path} does not respond: no controller\n"
    assert capsys.readouterr().out == expected


def test_without_a_cluster_down_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert devcluster.main(["down", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no cluster in {tmp_path}\n"
    assert tmp_path.exists()
