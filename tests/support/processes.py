"""Real processes for tests: the project's own doors, run as people run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = ROOT / "launch" / "accelerate" / "cpu.yaml"


def environment() -> dict[str, str]:
    """This environment without what a launcher or a cluster may have left, one thread a process."""
    left = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "ACCELERATE_", "SLURM_", "TORCHELASTIC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(module: str, arguments: Sequence[object], processes: int = 1) -> list[str]:
    """The command line of a door: plain python for one process, accelerate launch for several."""
    words = [str(argument) for argument in arguments]
    if processes == 1:
        return [sys.executable, "-m", module, *words]
    launch = [
        "accelerate.commands.launch",
        "--config_file",
        str(CPU),
        "--num_processes",
        str(processes),
    ]
    return [sys.executable, "-m", *launch, "-m", module, *words]


def run_command(
    module: str, arguments: Sequence[object], processes: int = 1, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a door to its end (four minutes at most) and give back its status and what it printed."""
    return subprocess.run(
        command(module, arguments, processes),
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
