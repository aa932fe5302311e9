"""Where SLURM's programs are on this machine, and what to install where they are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shards.errors import UserError

_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmstepd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "nsenter": "util-linux",
    "ip": "iproute2",
}
_FOR_ACCOUNTING = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"])
CLIENTS = (
    "sbatch",
    "srun",
    "salloc",
    "scancel",
    "scontrol",
    "squeue",
    "sinfo",
    "sacct",
    "sacctmgr",
    "sstat",
)


def find(name: str) -> Path | None:
    """The program file, None where it is not installed.

    Debian's /usr/sbin/slurmd is a link that the package slurm-wlm-emulator, if present, points at a build that starts
    no processes: the real one is called slurmd-wlm.
    """
    found = shutil.which(f"{name}-wlm", path=_PATH) or shutil.which(name, path=_PATH)
    return Path(found) if found else None


def missing(accounting: bool) -> list[str]:
    """What to install, by package name, for a cluster with or without accounting."""
    needed = {**_PACKAGES, **(_FOR_ACCOUNTING if accounting else {})}
    return sorted({package for name, package in needed.items() if find(name) is None})


def check(accounting: bool) -> None:
    """Raise `UserError` with the line that installs what is missing."""
    packages = missing(accounting)
    if packages:
        more = "" if missing(False) else " (or --no-accounting)"
        words = " ".join(packages)
        raise UserError(
            f"SLURM is not all here: apt-get install --no-install-recommends {words}{more}"
        )


def program(name: str) -> str:
    """The path of a program that `check` has found."""
    found = find(name)
    assert found is not None, name
    return str(found)
