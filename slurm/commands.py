"""Call SLURM's commands."""

from __future__ import annotations

import subprocess

from shards.errors import UserError

_TIMEOUT = 60  # seconds


def run_slurm(*command: str) -> str:
    """Run a SLURM command and return its standard output.

    Raises UserError if the command is not installed, fails, or does not respond within
    60 s.
    """
    done = _call(command)
    if done is None:
        raise UserError(
            f"SLURM does not respond ({command[0]} timed out after {_TIMEOUT} s): try again later"
        )
    if done.returncode:
        message = done.stderr.strip().rpartition("\n")[2]
        raise UserError(message or f"{command[0]} failed with status {done.returncode}")
    return done.stdout


def try_slurm(*command: str) -> str | None:
    """Return a SLURM command's standard output, None if it fails or takes over 60 s.

    Raises UserError if the command is not installed.
    """
    done = _call(command)
    return done.stdout if done is not None and done.returncode == 0 else None


def _call(command: tuple[str, ...]) -> subprocess.CompletedProcess[str] | None:
    """Run a command; return None if it takes more than 60 s."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"SLURM is not available here ({command[0]} not found): run this on a login node"
        ) from None
    except subprocess.TimeoutExpired:
        return None
