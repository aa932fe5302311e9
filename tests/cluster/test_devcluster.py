"""The development cluster itself: it leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurm.code import take_snapshot
from slurm.devcluster.configuration import MARK
from tests.cluster.conftest import short_folder
from tests.support.dev_cluster import DevCluster, wait_until
from tests.support.processes import ROOT, environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DEVCLUSTER = [sys.executable, "-m", "slurm.devcluster"]


def devcluster(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEVCLUSTER, *map(str, arguments)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def command_lines(folder: Path) -> list[str]:
    """Return the command lines of the processes of the cluster in `folder`."""
    lines = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        marked = (process.info["environ"] or {}).get(MARK) == str(folder)
        if marked and process.info["status"] != psutil.STATUS_ZOMBIE:
            lines.append(" ".join(process.info["cmdline"] or []))
    return lines


@pytest.fixture
def folder(needs_slurm: None) -> Iterator[Path]:
    path = short_folder()
    yield path
    devcluster("down", "--dir", path)
    shutil.rmtree(path, ignore_errors=True)


def start_with_jobs(folder: Path, hosts: str) -> None:
    """Start a cluster of two nodes, and two jobs whose processes would not end."""
    options = ["--nodes", 2, "--no-accounting", "--hosts", hosts]
    done = devcluster("up", "--dir", folder, *options)
    assert done.returncode == 0, done.stderr
    cluster = DevCluster(folder)
    gpus = ["-N2", "--ntasks-per-node=1", "--gpus-per-node=2"]
    visible = cluster.output("srun", *gpus, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert visible.split() == ["0,1", "0,1"]
    for script in ("sleep 1000", "srun -N2 sleep 1000"):
        cluster.output("sbatch", "-N2", "-o", "/dev/null", "--wrap", script)
    sleeping = re.compile(r"\S*sleep 1000")
    wait_until(
        "sleeping tasks",
        lambda: sum(bool(sleeping.fullmatch(line)) for line in command_lines(folder)) == 3,
        30,
    )


@pytest.mark.parametrize("hosts", ["auto", "loopback"])
def test_down_leaves_nothing(folder: Path, hosts: str) -> None:
    start_with_jobs(folder, hosts)
    status = devcluster("status", "--dir", folder)
    nodes = set(re.findall(r"^(\S+) +low\* ", status.stdout, re.MULTILINE))
    counts = (status.returncode, len(nodes), status.stdout.count(" RUNNING "))
    assert counts == (0, 2, 2), status.stdout
    done = devcluster("down", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, f"{folder} is down\n")
    assert command_lines(folder) == []
    assert not folder.exists()
    assert devcluster("down", "--dir", folder).stdout == f"no cluster in {folder}\n"


def test_the_cluster_ends_with_its_owner(folder: Path) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    options = ["--nodes", 1, "--no-accounting", "--owner", owner.pid]
    done = devcluster("up", "--dir", folder, *options)
    assert done.returncode == 0, done.stderr
    assert command_lines(folder)
    owner.kill()
    owner.wait()
    wait_until("the cluster's end", lambda: not folder.exists(), 30)
    assert command_lines(folder) == []


def test_a_killed_start_can_be_cleaned_up(folder: Path) -> None:
    """After SIGKILL to `up` itself, `down` finds the processes that it had started."""
    command = [*DEVCLUSTER, "up", "--dir", str(folder), "--no-accounting"]
    up = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until("a first process", lambda: bool(command_lines(folder)), 60)
    up.kill()
    up.wait()
    assert devcluster("down", "--dir", folder).returncode == 0
    assert command_lines(folder) == []
    assert not folder.exists()


NOBODY = 65534


def python_for_all() -> str | None:
    """Return an interpreter that another user may run (root's is often in /root)."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            # 3.11 has tomllib; older versions lack tomli here
            code = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run(
                [python, "-c", code], user=NOBODY, group=NOBODY, extra_groups=[], check=False
            ).returncode:
                continue
        except OSError:
            continue
        return python
    return None


@pytest.mark.skipif(
    os.getuid() != 0, reason="needs root: all tests of another user already use a user namespace"
)
def test_another_user_has_hosts_in_a_user_namespace(folder: Path) -> None:
    """Where the kernel allows user namespaces, nodes are hosts, whose power can fail
    too.
    """
    python = python_for_all()
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    unshare = ["unshare", "--user", "--map-current-user", "true"]
    if (
        python is None
        or subprocess.run(unshare, **user, capture_output=True, check=False).returncode
    ):
        pytest.skip(
            "there is no Python 3.11 that user nobody may run"
            if python is None
            else "user namespaces are not allowed here"
        )
    clone, cluster = take_snapshot(folder).folder, folder / "c"
    shutil.chown(folder, NOBODY, NOBODY)
    command = f"{python} -m slurm.devcluster"
    script = f"""
        cd {clone} && {command} up --dir {cluster} --nodes 2 --no-accounting &&
        . {cluster}/env && srun -N2 hostname &&
        {command} power-off node2 --dir {cluster} &&
        {command} boot node2 --dir {cluster}; status=$?
        {command} down --dir {cluster}; exit $status
    """
    variables = {
        **environment(),
        "PYTHONPATH": str(clone),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["sh", "-c", script],
        **user,
        env=variables,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, *hosts, last = done.stdout.splitlines()
    assert first.startswith("2 nodes (hosts in namespaces) are up")
    assert sorted(hosts) == ["node1", "node2"]
    assert last == f"{cluster} is down"
    assert command_lines(cluster) == []


def test_errors_are_one_line(session_cluster: DevCluster, folder: Path) -> None:
    (folder / "photograph.png").touch()
    long = folder / ("x" * 80)
    messages = {
        ("up", "--dir", session_cluster.folder): "holds a cluster",
        ("up", "--dir", folder): "is not an empty folder",
        ("up", "--dir", long): "too long for the path of a socket",
        ("up", "--dir", folder / "a b"): "no spaces",
        ("up", "--gpus", 9, "--dir", folder / "c"): "--gpus 9: must be from 0 to 7",
        ("status", "--dir", folder): "there is no cluster in",
        (
            "boot",
            "nod2",
            "--dir",
            session_cluster.folder,
        ): "unknown node 'nod2'; valid, nearest first: node2",
        ("blow-up", "node2"): "invalid choice: 'blow-up'",
    }
    for arguments, message in messages.items():
        done = devcluster(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
    devcluster("down", "--dir", folder)
    assert (folder / "photograph.png").exists()  # `down` keeps a folder that holds no cluster


def test_a_lost_node_goes_down_and_comes_back(with_hosts: DevCluster, tmp_path: Path) -> None:
    """The controller notices both.

    Afterwards node3, which has cached node4's address, starts a step there at once.
    """
    state = ("sinfo", "-h", "-N", "-p", "high", "-n", "node4", "-o", "%t")
    before = hardware_addresses(with_hosts, tmp_path / "before")
    assert len(before) == 2
    for off, on in (("power-off", "boot"), ("unplug", "plug")):
        with_hosts.inject_event(off, "node4")
        wait_until(
            f"node4 down after {off}", lambda: with_hosts.output(*state).startswith("down"), 60
        )
        with_hosts.inject_event(on, "node4")
        wait_until(f"node4 idle after {on}", lambda: with_hosts.output(*state) == "idle", 90)
        assert hardware_addresses(with_hosts, tmp_path / on) == before


def hardware_addresses(cluster: DevCluster, log: Path) -> list[str]:
    """Return the hardware addresses of node3 and node4, by a step from one to the
    other.

    The step must start within the life of a credential, 5 s.
    """
    show = "srun -N2 -n2 ip -brief link show eth0"
    cluster.output("sbatch", "--wait", "-N2", "-w", "node[3-4]", "-o", str(log), "--wrap", show)
    return sorted(line.split()[2] for line in log.read_text().splitlines())
