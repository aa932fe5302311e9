"""The development cluster itself: it leaves nothing behind, however it ends, and says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slurm.devcluster import programs
from slurm.devcluster.configuration import MARK
from tests.cluster.conftest import short_folder
from tests.cluster.lab import Lab, until
from tests.distributed.processes import ROOT, environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DOOR = [sys.executable, "-m", "slurm.devcluster"]


def door(*words: object) -> subprocess.CompletedProcess[str]:
    line = [*DOOR, *map(str, words)]
    return subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


def alive(folder: Path) -> list[str]:
    """Command lines of processes that belong to the cluster in `folder`."""
    found = []
    for one in psutil.process_iter(["environ", "cmdline", "status"]):
        if (one.info["environ"] or {}).get(MARK) == str(folder) and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(one.info["cmdline"] or []))
    return found


@pytest.fixture
def folder(needs_slurm: None) -> Iterator[Path]:
    path = short_folder()
    yield path
    door("down", "--dir", path)
    shutil.rmtree(path, ignore_errors=True)


def jobs_run(folder: Path, hosts: str) -> None:
    """Start a cluster of two nodes, and two jobs whose processes would go on for ever."""
    small = ["--nodes", 2, "--no-accounting", "--hosts", hosts]
    done = door("up", "--dir", folder, *small)
    assert done.returncode == 0, done.stderr
    lab = Lab(folder)
    places = lab.ask(
        "srun", "-N2", "--ntasks-per-node=1", "--gpus-per-node=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"
    )
    assert places.split() == ["0,1", "0,1"]
    for text in ("sleep 1000", "srun -N2 sleep 1000"):
        lab.ask("sbatch", "-N2", "-o", "/dev/null", "--wrap", text)
    until("sleeping tasks", lambda: sum(bool(re.fullmatch(r"\S*sleep 1000", line)) for line in alive(folder)) == 3, 30)


@pytest.mark.parametrize("hosts", ["auto", "loopback"])
def test_down_leaves_nothing(folder: Path, hosts: str) -> None:
    jobs_run(folder, hosts)
    assert "2 nodes" not in door("status", "--dir", folder).stderr
    done = door("down", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, f"{folder} is down\n")
    assert alive(folder) == []
    assert not folder.exists()
    assert door("down", "--dir", folder).stdout == f"no cluster in {folder}\n"


def test_a_killed_owner_takes_the_cluster_along(folder: Path) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    done = door("up", "--dir", folder, "--nodes", 1, "--no-accounting", "--owner", owner.pid)
    assert done.returncode == 0, done.stderr
    assert alive(folder)
    owner.kill()
    owner.wait()
    until("the cluster's end", lambda: not folder.exists(), 30)
    assert alive(folder) == []


def test_a_killed_start_is_cleared_away(folder: Path) -> None:
    """SIGKILL to `up` itself: what it had started is found all the same."""
    line = [*DOOR, "up", "--dir", str(folder), "--no-accounting"]
    starting = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
    until("a first process", lambda: bool(alive(folder)), 60)
    starting.kill()
    starting.wait()
    assert door("down", "--dir", folder).returncode == 0
    assert alive(folder) == []
    assert not folder.exists()


def test_mistakes_are_one_line(lab: Lab, folder: Path) -> None:
    (folder / "photograph.png").touch()
    long = folder / ("x" * 80)
    said = {
        ("up", "--dir", lab.folder): "holds a cluster",
        ("up", "--dir", folder): "is not an empty folder",
        ("up", "--dir", long): "too long for sockets",
        ("up", "--dir", folder / "a b"): "no spaces",
        ("up", "--gpus", 9, "--dir", folder / "c"): "--gpus 9: a node can have 0 to 7",
        ("status", "--dir", folder): "no cluster in",
        ("boot", "nod2", "--dir", lab.folder): "unknown node 'nod2'; valid, nearest first: node2",
        ("blow-up", "node2"): "invalid choice: 'blow-up'",
    }
    for words, text in said.items():
        done = door(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert text in done.stderr
    door("down", "--dir", folder)
    assert (folder / "photograph.png").exists()  # a folder that holds no cluster is none of its business


def test_the_line_that_installs_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_PATH", os.devnull)
    with pytest.raises(programs.UserError) as error:
        programs.check(accounting=False)
    line = "apt-get install --no-install-recommends iproute2 munge slurm-client slurmctld slurmd util-linux"
    assert line in str(error.value)
    assert programs.missing(accounting=True) == sorted([*line.split()[3:], "mariadb-server", "slurmdbd"])


def test_a_cut_node_goes_down_and_comes_back(hosts: Lab) -> None:
    """Power first, then the cable; the controller sees both, and has the node again afterwards."""
    state = ("sinfo", "-h", "-N", "-p", "high", "-n", "node4", "-o", "%t")
    for off, on in (("power-off", "boot"), ("unplug", "plug")):
        hosts.befall(off, "node4")
        until(f"node4 down after {off}", lambda: hosts.ask(*state).startswith("down"), 60)
        hosts.befall(on, "node4")
        until(f"node4 idle after {on}", lambda: hosts.ask(*state) == "idle", 90)
