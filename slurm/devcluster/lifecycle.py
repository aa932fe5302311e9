"""Start and stop a development cluster, and inject faults into its nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from shards.errors import UserError, unknown
from slurm.devcluster import daemons, hosts
from slurm.devcluster.configuration import MARK, write_files, write_outside_wrappers
from slurm.devcluster.plan import FILE, Plan, save

ROOT = Path(__file__).resolve().parents[2]


def start_cluster(plan: Plan) -> None:
    """Start all daemons of a cluster and wait until every node is idle.

    If a daemon does not start, all processes are stopped again, the logs are kept, and
    UserError is raised.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    plan.folder.chmod(0o755)  # munged refuses a folder that its group may write to
    save(plan)
    try:
        write_files(plan)
        daemons.link_programs(plan)
        if plan.uses_namespaces:
            hosts.power_on(plan, plan.head[0])
            hosts.make_switch(plan)
            write_outside_wrappers(plan, hosts.init_pid(plan, plan.head[0]))
        daemons.start_munged(plan)
        if plan.accounting:
            daemons.start_accounting(plan)
        daemons.start_controller(plan)
        for node in plan.node_names:
            _start_node(plan, node, rebooted=False)
        daemons.wait_for_nodes(plan)
    except BaseException:
        stop_processes(plan.folder)
        raise


def _start_node(plan: Plan, node: str, *, rebooted: bool) -> None:
    if plan.uses_namespaces:
        hosts.power_on(plan, node)
        hosts.connect(plan, node)
    daemons.start_node(plan, node, rebooted=rebooted)


def stop_cluster(folder: Path) -> bool:
    """Stop all processes of the cluster in `folder` and delete the folder.

    Returns whether there was a cluster.
    """
    any_process = stop_processes(folder)
    if (folder / FILE).exists():  # otherwise the folder is not a cluster's, and is kept
        shutil.rmtree(folder)
        return True
    return any_process


def stop_processes(folder: Path) -> bool:
    """Send SIGKILL to the processes of the cluster in `folder` until none is left.

    Returns whether there were any. Raises UserError if the processes do not end within
    20 s or belong to another user.
    """
    any_process = False
    end = time.monotonic() + 20
    while pids := cluster_processes(folder):
        any_process = True
        for pid in pids:
            _kill(pid)
        time.sleep(0.02)
        if time.monotonic() > end:
            raise UserError(
                f"processes {pids} of the cluster in {folder} do not end: stop them manually"
            )
    return any_process


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise UserError(
            f"process {pid} of the cluster belongs to another user: "
            "run this command as the user who started the cluster"
        ) from None


def cluster_processes(folder: Path) -> list[int]:
    """Return the ids of all processes of the cluster in `folder`.

    They are found by the variable `MARK` in their environment. Zombies, this process
    and its ancestors are excluded.
    """
    mark, excluded = os.fsencode(f"{MARK}={folder}"), _own_and_ancestor_pids()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in excluded:
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                pids.append(int(entry.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return pids


def _own_and_ancestor_pids() -> set[int]:
    pid, pids = os.getpid(), set()
    while pid:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
    return pids


def stop_with_owner(plan: Plan, owner: int) -> None:
    """Start a background process that stops the cluster when process `owner` ends."""
    script = (
        'while kill -0 "$1" && [ -e "$2" ]; do sleep 1; done; '
        '[ ! -e "$2" ] || exec "$3" -m slurm.devcluster down --dir "$4"'
    )
    arguments = [str(owner), str(plan.folder / FILE), sys.executable, str(plan.folder)]
    subprocess.Popen(
        ["sh", "-c", script, "sh", *arguments],
        cwd=ROOT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def inject_event(plan: Plan, event: str, node: str) -> None:
    """Apply an event (power-off, boot, unplug or plug) to a node.

    Raises UserError if the node is unknown, if the cluster does not use namespaces, or
    if the event is `boot` and the node is on.
    """
    if node not in plan.node_names:
        raise unknown("node", node, plan.node_names)
    if not plan.uses_namespaces:
        raise UserError(
            f"{event} requires nodes that are hosts in namespaces, but this cluster's nodes are "
            "daemons on the loopback interface: start a cluster with --hosts namespaces"
        )
    if plan.user_namespace:
        hosts.join_user_namespace(hosts.init_pid(plan, plan.head[0]))
    if event == "boot" and hosts.is_on(plan, node):
        raise UserError(f"{node} is on already: run `colortrain devcluster power-off {node}` first")
    EVENTS[event][0](plan, node)


def _boot(plan: Plan, node: str) -> None:
    _start_node(plan, node, rebooted=True)


# Name -> (function, description).
EVENTS = {
    "power-off": (hosts.power_off, "power failure: all processes on the node end at once"),
    "boot": (_boot, "switch a node on again, with its name and address"),
    "unplug": (
        lambda plan, node: hosts.set_link(plan, node, "down"),
        "disconnect its network: its processes keep running",
    ),
    "plug": (lambda plan, node: hosts.set_link(plan, node, "up"), "reconnect its network"),
}
