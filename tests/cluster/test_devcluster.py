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

from slurm import code
from slurm.devcluster import programs
from slurm.devcluster.configuration import MARK
from tests.cluster.conftest import short_folder
from tests.support.processes import ROOT, environment
from tests.support.slurm_lab import Lab, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DOOR = [sys.executable, "-m", "slurm.devcluster"]


def door(*words: object) -> subprocess.CompletedProcess[str]:
    line = [*DOOR, *map(str, words)]
    return subprocess.run(
        line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )


def alive(folder: Path) -> list[str]:
    """Command lines of processes that belong to the cluster in `folder`."""
    found = []
    for one in psutil.process_iter(["environ", "cmdline", "status"]):
        if (one.info["environ"] or {}).get(MARK) == str(folder) and one.info[
            "status"
        ] != psutil.STATUS_ZOMBIE:
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
        "srun",
        "-N2",
        "--ntasks-per-node=1",
        "--gpus-per-node=2",
        "sh",
        "-c",
        "echo $CUDA_VISIBLE_DEVICES",
    )
    assert places.split() == ["0,1", "0,1"]
    for text in ("sleep 1000", "srun -N2 sleep 1000"):
        lab.ask("sbatch", "-N2", "-o", "/dev/null", "--wrap", text)
    until(
        "sleeping tasks",
        lambda: sum(bool(re.fullmatch(r"\S*sleep 1000", line)) for line in alive(folder)) == 3,
        30,
    )


@pytest.mark.parametrize("hosts", ["auto", "loopback"])
def test_down_leaves_nothing(folder: Path, hosts: str) -> None:
    jobs_run(folder, hosts)
    shown = door("status", "--dir", folder)
    nodes = set(re.findall(r"^(\S+) +low\* ", shown.stdout, re.MULTILINE))
    assert (shown.returncode, len(nodes), shown.stdout.count(" RUNNING ")) == (0, 2, 2), (
        shown.stdout
    )
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


NOBODY = 65534


def python_for_all() -> str | None:
    """An interpreter that another user may run: root's own often lies below /root."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            text = "import sys; sys.exit(sys.version_info < (3, 11))"  # tomllib; older ones lack tomli here
            if subprocess.run(
                [python, "-c", text], user=NOBODY, group=NOBODY, extra_groups=[], check=False
            ).returncode:
                continue
        except OSError:
            continue
        return python
    return None


@pytest.mark.skipif(
    os.getuid() != 0, reason="not root: every test here is one of another user's cluster"
)
def test_another_user_has_the_same_in_a_user_namespace(folder: Path) -> None:
    """Nodes are hosts of their own for everybody whom the kernel allows user namespaces; they too lose power."""
    python, who = python_for_all(), {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    words = ["unshare", "--user", "--map-current-user", "true"]
    if python is None or subprocess.run(words, **who, capture_output=True, check=False).returncode:  # type: ignore[call-overload]
        pytest.skip(
            "no Python 3.11 that user nobody may run"
            if python is None
            else "no user namespaces here"
        )
    clone, cluster = code.snapshot(folder).folder, folder / "c"
    shutil.chown(folder, NOBODY, NOBODY)
    door = f"{python} -m slurm.devcluster"
    text = f"""
        cd {clone} && {door} up --dir {cluster} --nodes 2 --no-accounting && . {cluster}/env && srun -N2 hostname &&
        {door} power-off node2 --dir {cluster} && {door} boot node2 --dir {cluster}; status=$?
        {door} down --dir {cluster}; exit $status
    """
    env = {
        **environment(),
        "PYTHONPATH": str(clone),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["sh", "-c", text], **who, env=env, capture_output=True, text=True, timeout=180, check=False
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    first, *hosts, last = done.stdout.splitlines()
    assert first.startswith("2 nodes (hosts in namespaces) are up")
    assert sorted(hosts) == ["node1", "node2"]
    assert last == f"{cluster} is down"
    assert alive(cluster) == []


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
    assert (
        folder / "photograph.png"
    ).exists()  # a folder that holds no cluster is none of its business


def test_the_line_that_installs_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_PATH", os.devnull)
    with pytest.raises(programs.UserError) as error:
        programs.check(accounting=False)
    line = "apt-get install --no-install-recommends iproute2 munge slurm-client slurmctld slurmd util-linux"
    assert line in str(error.value)
    assert programs.missing(accounting=True) == sorted(
        [*line.split()[3:], "mariadb-server", "slurmdbd"]
    )


def test_a_cut_node_goes_down_and_comes_back(hosts: Lab, tmp_path: Path) -> None:
    """The controller sees both ends; afterwards node3, which knew it before, starts a step there at once."""
    state = ("sinfo", "-h", "-N", "-p", "high", "-n", "node4", "-o", "%t")
    before = addresses(hosts, tmp_path / "before")
    assert len(before) == 2
    for off, on in (("power-off", "boot"), ("unplug", "plug")):
        hosts.strike(off, "node4")
        until(f"node4 down after {off}", lambda: hosts.ask(*state).startswith("down"), 60)
        hosts.strike(on, "node4")
        until(f"node4 idle after {on}", lambda: hosts.ask(*state) == "idle", 90)
        assert addresses(hosts, tmp_path / on) == before


def addresses(lab: Lab, log: Path) -> list[str]:
    """Hardware addresses of node3 and node4, asked by a step from one to the other: credentials live 5 s."""
    show = "srun -N2 -n2 ip -brief link show eth0"
    lab.ask("sbatch", "--wait", "-N2", "-w", "node[3-4]", "-o", str(log), "--wrap", show)
    return sorted(line.split()[2] for line in log.read_text().splitlines())
