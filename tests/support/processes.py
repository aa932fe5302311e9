"""Run the project's commands in real processes, as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.gpu_stand_in.build import LIBRARY_VARIABLE

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = ROOT / "launch" / "accelerate"
CPU = CONFIGS / "cpu.yaml"


def environment() -> dict[str, str]:
    """Return this environment without a launcher's or a cluster's variables.

    Processes use one thread each. They see GPU stand-ins if this process does.
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
    paths = os.environ["PYTHONPATH"] if LIBRARY_VARIABLE in os.environ else str(ROOT)
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


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


def gpu_command(
    module: str,
    arguments: Sequence[object],
    gpus: int = 1,
    precision: str | None = None,
    config: str | None = None,
) -> list[str]:
    """Return the command line that runs a module on GPUs, one process for each.

    It names one of the project's configurations of accelerate, so that the user's own
    has no effect: `config`, or one_gpu.yaml or ddp.yaml. `precision` is None for that
    of the configuration.
    """
    file = CONFIGS / (config or ("one_gpu.yaml" if gpus == 1 else "ddp.yaml"))
    launch = ["--config_file", str(file), "--num_processes", str(gpus)]
    launch += ["--mixed_precision", precision] if precision else []
    argv = [*launch, "-m", module, *map(str, arguments)]
    return [sys.executable, "-m", "accelerate.commands.launch", *argv]


def run_gpu_command(
    module: str,
    arguments: Sequence[object],
    gpus: int = 1,
    precision: str | None = None,
    config: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a module on GPUs to its end, for at most 280 s; return status and output.

    Without TF32, which rounds to 10 bits.
    """
    return subprocess.run(
        gpu_command(module, arguments, gpus, precision, config),
        env={**environment(), "NVIDIA_TF32_OVERRIDE": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


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
