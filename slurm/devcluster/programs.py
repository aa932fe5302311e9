"""Find SLURM's programs on this machine, and the packages that contain missing ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shards.errors import UserError

# Program -> Debian package.
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
    """Return the path of a program, or None if it is not installed.

    The name with Debian's suffix -wlm is preferred: /usr/sbin/slurmd-wlm is always the
    real slurmd. /usr/sbin/slurmd may be a link to another slurmd, from the package
    slurm-wlm-emulator, which starts no processes.
    """
    path = shutil.which(f"{name}-wlm", path=_PATH) or shutil.which(name, path=_PATH)
    return Path(path) if path else None


def missing(accounting: bool) -> list[str]:
    """Return the Debian packages that a cluster requires but this machine lacks.

    With `accounting`, the packages of the accounting database are included.
    """
    needed = {**_PACKAGES, **(_FOR_ACCOUNTING if accounting else {})}
    return sorted({package for name, package in needed.items() if find(name) is None})


def check(accounting: bool) -> None:
    """Raise UserError if programs that a cluster requires are missing.

    The message gives the command that installs them.
    """
    packages = missing(accounting)
    if packages:
        alternative = "" if missing(False) else " (or use --no-accounting)"
        raise UserError(
            "SLURM is not completely installed: run apt-get install --no-install-recommends "
            f"{' '.join(packages)}{alternative}"
        )


def program(name: str) -> str:
    """Return the path of a program, which `check` must have found before."""
    path = find(name)
    assert path is not None, name
    return str(path)
