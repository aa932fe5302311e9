"""The exit status of several processes, such as those of `colortrain train`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launch.processes import CONFIGS
from launch.start_processes import common_status
from tests.support.processes import ROOT, environment


@pytest.mark.parametrize(
    ("statuses", "status"),
    [([2], 2), ([69, 2], 2), ([69, -9, 69], 137), ([69, 69], 69), ([-15], 143)],
)
def test_the_status_is_that_of_the_cause(statuses: list[int], status: int) -> None:
    assert common_status(statuses) == status


@pytest.mark.distributed
@pytest.mark.parametrize(("config", "processes"), [("cpu", 2), ("one_gpu", 1)])
def test_the_status_of_a_process_arrives(config: str, processes: int) -> None:
    """The last process refuses its options; accelerate alone would return 1."""
    code = "import os, sys, time; sys.exit(2) if os.environ.get('RANK') != '0' else time.sleep(60)"
    launch = ["--config_file", CONFIGS / f"{config}.yaml", "--num_processes", processes]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "launch.start_processes", *map(str, launch)),
            *("--no_python", sys.executable, "-c", code),
        ],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
