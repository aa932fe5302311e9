"""A cluster's life: up, down without a trace, and what can befall a node in between."""

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
from slurm.devcluster.configuration import MARK, write_files, write_outer_commands
from slurm.devcluster.plan import FILE, Plan, save

ROOT = Path(__file__).resolve().parents[2]


def up(plan: Plan) -> None:
    """Start every daemon; leaves nothing behind if one does not start."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    plan.folder.chmod(0o755)  # munged refuses a folder that its group may write to
    save(plan)
    try:
        write_files(plan)
        daemons.link_programs(plan)
        if plan.own_hosts:
            hosts.power_on(plan, plan.head[0])
            hosts.make_switch(plan)
            write_outer_commands(plan, hosts.process_1(plan, plan.head[0]))
        daemons.start_munged(plan)
        if plan.accounting:
            daemons.start_accounting(plan)
        daemons.start_controller(plan)
        for node in plan.node_names:
            _start_node(plan, node, rebooted=False)
        daemons.wait_for_nodes(plan)
    except BaseException:
        stop_processes(plan.folder)  # the logs stay, for whoever reads the error
        raise


def _start_node(plan: Plan, node: str, *, rebooted: bool) -> None:
    if plan.own_hosts:
        hosts.power_on(plan, node)
        hosts.connect(plan, node)
    daemons.start_node(plan, node, rebooted=rebooted)


def down(folder: Path) -> bool:
    """Stop all that runs for the cluster in `folder` and delete the folder; whether there was anything."""
    found = stop_processes(folder)
    if (folder / FILE).exists():  # not a folder that only happens to have the name
        shutil.rmtree(folder)
        return True
    return found


def stop_processes(folder: Path) -> bool:
    """SIGKILL to every process that carries the cluster's mark, until there is none; whether there were any."""
    found = False
    end = time.monotonic() + 20
    while numbers := _processes(folder):
        found = True
        for number in numbers:
            _kill(number)
        time.sleep(0.02)
        if time.monotonic() > end:
            raise UserError(
                f"processes {numbers} of the cluster in {folder} do not end: stop them by hand"
            )
    return found


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise UserError(
            f"process {number} of the cluster is another user's: run this as the one who started it"
        ) from None


def _processes(folder: Path) -> list[int]:
    """Processes marked as the cluster's; not zombies, not this one or those it descends from."""
    mark, spared = os.fsencode(f"{MARK}={folder}"), _ancestors()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # gone, or another user's
            continue
    return found


def _ancestors() -> set[int]:
    number, found = os.getpid(), set()
    while number:
        found.add(number)
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()[1])
    return found


def watch(plan: Plan, owner: int) -> None:
    """Leave a process behind that takes the cluster down once process `owner` is gone, however it went."""
    text = 'while kill -0 "$1" && [ -e "$2" ]; do sleep 1; done; [ ! -e "$2" ] || exec "$3" -m slurm.devcluster down '
    text += '--dir "$4"'
    words = [str(owner), str(plan.folder / FILE), sys.executable, str(plan.folder)]
    subprocess.Popen(
        ["sh", "-c", text, "sh", *words],
        cwd=ROOT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def befall(plan: Plan, event: str, node: str) -> None:
    """Let `event`, one of `EVENTS`, happen to a node."""
    if node not in plan.node_names:
        raise unknown("node", node, plan.node_names)
    if not plan.own_hosts:
        raise UserError(
            f"{event} needs hosts of their own; this cluster's nodes are daemons on the loopback"
        )
    if plan.user_namespace:
        hosts.join_user_namespace(hosts.process_1(plan, plan.head[0]))
    if event == "boot" and hosts.is_on(plan, node):
        raise UserError(f"{node} is on already; power-off comes first")
    EVENTS[event][0](plan, node)


def _boot(plan: Plan, node: str) -> None:
    _start_node(plan, node, rebooted=True)


EVENTS = {
    "power-off": (hosts.power_off, "a power cut: everything on the node is gone at once"),
    "boot": (_boot, "switch a node on again, with its name and address"),
    "unplug": (
        lambda plan, node: hosts.set_cable(plan, node, "down"),
        "pull its cable: processes live on",
    ),
    "plug": (lambda plan, node: hosts.set_cable(plan, node, "up"), "put the cable back"),
}
