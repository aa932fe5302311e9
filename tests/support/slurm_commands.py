"""Stubs for SLURM's commands: shell scripts that come first on the PATH."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

# A stub of sinfo. Columns: partition|default|nodes|CPUs|MB|GRES|features|time limit.
SINFO = """\
cat <<'END'
gpu|gpu*|2|64|256000|gpu:a100:4(S:0-1),gpu:v100:2|a100,nvme|2-12:30:00
gpu|gpu*|3|128|512000|gpu:8|(null)|2-12:30:00
cpu|cpu|9|32|64000|(null)|(null)|infinite
END"""


def write_commands(folder: Path, scripts: Mapping[str, str]) -> None:
    """Write a shell script per command into `folder`, which is created."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def install_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: Mapping[str, str]
) -> None:
    """Put stubs of SLURM's commands first on this process's PATH."""
    write_commands(tmp_path / "bin", scripts)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def resume_command_of(parameters: Mapping[str, Any]) -> str:
    """Return the command that a job prints for the user, from submitit's parameters.

    It is the last argument of the shell function `requeue`.
    """
    return shlex.split(parameters["teardown"][-1])[-1]
