"""Stubs for SLURM's commands: shell scripts that come first on the PATH."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest


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
