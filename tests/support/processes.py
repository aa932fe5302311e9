"""Run the project's commands in real processes, as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = ROOT / "launch" / "accelerate" / "cpu.yaml"


def environment() -> dict[str, str]:
    """Return this environment without a launcher's or a cluster's variables.

    Processes use one thread each.
    """
    removed = (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_",
        "ACCELERATE_",
        "SLURM_",
        "TORCHELASTIC_",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(module: str, arguments: Sequence[object], processes: int = 1) -> list[str]:
    """Return the command line that runs a module.

    It starts python for one process and `accelerate launch` for several.
    """
    argv = [str(argument) for argument in arguments]
    if processes == 1:
        return [sys.executable, "-m", module, *argv]
    launch = [
        "accelerate.commands.launch",
        "--config_file",
        str(CPU),
        "--num_processes",
        str(processes),
    ]
    return [sys.executable, "-m", *launch, "-m", module, *argv]


def run_command(
    module: str, arguments: Sequence[object], processes: int = 1, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, for at most four minutes; return status and output."""
    return subprocess.run(
        command(module, arguments, processes),
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
