"""SLURM's programs on this machine, and the packages of those that are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm.devcluster import programs

INSTALL = (
    "apt-get install --no-install-recommends "
    "iproute2 munge slurm-client slurmctld slurmd util-linux"
)


def test_the_error_has_the_command_that_installs_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "_PATH", os.devnull)
    with pytest.raises(UserError) as error:
        programs.check(accounting=False)
    assert INSTALL in str(error.value)
    assert programs.missing(accounting=True) == sorted(
        [*INSTALL.split()[3:], "mariadb-server", "slurmdbd"]
    )


def test_only_accounting_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("slurmctld", "slurmd", "slurmstepd", "sbatch", "munged", "nsenter", "ip"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(programs, "_PATH", str(tmp_path))
    programs.check(accounting=False)
    with pytest.raises(UserError, match=r"mariadb-server slurmdbd \(or use --no-accounting\)$"):
        programs.check(accounting=True)


def test_the_real_daemon_is_preferred_to_the_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_PATH", str(tmp_path))
    assert programs.find("slurmd") is None
    (tmp_path / "slurmd").touch(0o755)
    assert programs.program("slurmd") == str(tmp_path / "slurmd")
    (tmp_path / "slurmd-wlm").touch(0o755)
    assert programs.program("slurmd") == str(tmp_path / "slurmd-wlm")
