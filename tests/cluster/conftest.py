"""One SLURM for all tests of this folder.

Without SLURM's programs the tests are skipped, or fail under REQUIRE_SLURM=1.
"""

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
from tests.support import disturbance_costs
from tests.support.dev_cluster import STEPS, DevCluster, training_argv
from tests.support.processes import ROOT, environment, run_command
from tests.support.small_shard_set import small_set


def skip_or_fail(reason: str) -> None:
    """Skip the test, or fail under REQUIRE_SLURM, where a skip would go unnoticed."""
    (pytest.fail if os.environ.get("REQUIRE_SLURM") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def needs_slurm() -> None:
    packages = programs.missing(accounting=True)
    if packages:
        skip_or_fail(
            "SLURM is not installed: apt-get install --no-install-recommends " + " ".join(packages)
        )


def short_folder() -> Path:
    """Return a new folder for a cluster, in memory where possible.

    Its path is short, because sockets are created in it.
    """
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="devcluster.", dir=parent)).resolve()


@pytest.fixture(scope="session")
def session_cluster(needs_slurm: None) -> Iterator[DevCluster]:
    """A cluster that ends with this process, however that ends."""
    folder = short_folder()
    devcluster = [sys.executable, "-m", "slurm.devcluster"]
    done = subprocess.run(
        [*devcluster, "up", "--dir", str(folder), "--owner", str(os.getpid())],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # never a skip: SLURM is installed
    yield DevCluster(folder)
    if logs := os.environ.get("KEEP_SLURM_LOGS"):
        shutil.copytree(folder / "log", logs, dirs_exist_ok=True)
    down = [*devcluster, "down", "--dir", str(folder)]
    subprocess.run(down, env=environment(), cwd=ROOT, timeout=60, check=True)


@pytest.fixture
def cluster(session_cluster: DevCluster) -> Iterator[DevCluster]:
    """The cluster, whose jobs are cancelled after each test."""
    yield session_cluster
    session_cluster.clear()


@pytest.fixture(scope="session")
def with_hosts(session_cluster: DevCluster) -> DevCluster:
    """The cluster, if its nodes are hosts whose power can fail."""
    if not (session_cluster.folder / "etc/hosts").exists():
        skip_or_fail("this machine does not allow namespaces: nodes are daemons on the loopback")
    return session_cluster


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=22, splits=("train", "val"))


@pytest.fixture(scope="session")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference for all runs: accelerate launch with four processes, no SLURM."""
    return reference_run(shards, tmp_path_factory, 4)


@pytest.fixture(scope="session")
def undisturbed_pair(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two processes."""
    return reference_run(shards, tmp_path_factory, 2)


def reference_run(shards: Path, factory: pytest.TempPathFactory, processes: int) -> Path:
    """Return the reference run, which all workers of xdist share.

    The first worker that needs it trains it.
    """
    folder = factory.getbasetemp()
    parent = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    run = parent / f"undisturbed-{processes}"
    with open(run.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not checkpoint_folder(run, STEPS).is_dir():
            argv = [*training_argv(shards), "--run", run]
            done = run_command("launch.train", argv, processes=processes)
            assert done.returncode == 0, done.stderr
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each kind of disturbance cost, after the tests."""
    reports = terminalreporter.stats.get("passed", [])
    lines = disturbance_costs.table(
        record for report in reports for record in getattr(report, "user_properties", ())
    )
    if lines:
        terminalreporter.write_line("\n".join(["", *lines, ""]))
