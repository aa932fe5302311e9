"""One SLURM for all tests of this folder. Without its programs they are skipped, or fail under REQUIRE_SLURM=1."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colortrain.runs.layout import checkpoint_folder
from slurm.devcluster import programs
from tests.support import cluster_figures
from tests.support.processes import ROOT, environment, run_command
from tests.support.slurm_lab import STEPS, Lab, training
from tests.support.small_shard_set import small_set


def lacking(reason: str) -> None:
    """Skip, or fail where a skip would hide that nothing was tested."""
    (pytest.fail if os.environ.get("REQUIRE_SLURM") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def needs_slurm() -> None:
    packages = programs.missing(accounting=True)
    if packages:
        lacking(f"no SLURM here: apt-get install --no-install-recommends {' '.join(packages)}")


def short_folder() -> Path:
    """A folder for a cluster: in memory where there is some, and of a short name, for its sockets."""
    memory = Path("/dev/shm")
    return Path(
        tempfile.mkdtemp(prefix="devcluster.", dir=memory if os.access(memory, os.W_OK) else None)
    ).resolve()


@pytest.fixture(scope="session")
def lab(needs_slurm: None) -> Iterator[Lab]:
    """A cluster that ends with this process, however that ends."""
    folder = short_folder()
    door = [sys.executable, "-m", "slurm.devcluster"]
    words = [*door, "up", "--dir", str(folder), "--owner", str(os.getpid())]
    done = subprocess.run(
        words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr  # never a skip: it is installed
    yield Lab(folder)
    if keep := os.environ.get("KEEP_SLURM_LOGS"):
        shutil.copytree(folder / "log", keep, dirs_exist_ok=True)
    subprocess.run(
        [*door, "down", "--dir", str(folder)], env=environment(), cwd=ROOT, timeout=60, check=True
    )


@pytest.fixture
def tidy(lab: Lab) -> Iterator[Lab]:
    """The cluster, without jobs of an earlier test and for a later one."""
    yield lab
    lab.tidy()


@pytest.fixture(scope="session")
def hosts(lab: Lab) -> Lab:
    """The cluster, if its nodes can have power cuts."""
    if not (lab.folder / "etc/hosts").exists():
        lacking("this machine allows no namespaces: nodes are daemons on the loopback")
    return lab


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=22, splits=("train", "val"))


@pytest.fixture(scope="session")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others must equal: four processes of accelerate launch, no cluster."""
    return reference(shards, tmp_path_factory, 4)


@pytest.fixture(scope="session")
def undisturbed_pair(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two processes."""
    return reference(shards, tmp_path_factory, 2)


def reference(shards: Path, factory: pytest.TempPathFactory, processes: int) -> Path:
    """A run that all of xdist's workers share: whoever needs it first makes it."""
    folder = factory.getbasetemp()
    run = (
        folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    ) / f"undisturbed-{processes}"
    with open(run.with_suffix(".lock"), "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        if not checkpoint_folder(run, STEPS).is_dir():
            done = run_command(
                "launch.train", [*training(shards), "--run", run], processes=processes
            )
            assert done.returncode == 0, done.stderr
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Below the tests: what each kind of disturbance cost."""
    reports = terminalreporter.stats.get("passed", [])
    lines = cluster_figures.table(
        note for report in reports for note in getattr(report, "user_properties", ())
    )
    if lines:
        terminalreporter.write_line("\n".join(["", *lines, ""]))
