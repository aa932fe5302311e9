"""The hosts of a development cluster, each of which is a set of Linux namespaces.

A host has its own network, host name, mounts and processes. It exists as long as its
init process (process 1 of its process namespace).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from shards.errors import UserError
from slurm.devcluster.configuration import MARK
from slurm.devcluster.plan import Plan
from slurm.devcluster.programs import find

_NAMESPACES = ["--net", "--uts", "--mount", "--pid"]
_ENTER_USER_NAMESPACE = ["unshare", "--user", "--map-current-user", "--keep-caps"]

# The init process of a host. Killing it kills everything that runs on the host at once,
# like a power failure. It mounts the cluster's /etc/hosts, and the nodes' own client
# commands over those that enter the head first. Finally it only waits, which makes
# bash reap orphans.
_INIT = r"""
set -e
name=$1 folder=$2
hostname "$name"
ip link set lo up
mount --bind "$folder/etc/hosts" /etc/hosts
mount --bind "$folder/nodebin" "$folder/bin"
touch "$folder/run/$name.up"
trap 'exit 0' TERM
while :; do sleep 3600 & wait $! || true; done
"""

# The link from a node to the head's switch. A node keeps its hardware address when it
# is booted again, as a real one does: the other hosts cache it, and would send to an
# old address for eight seconds, which is longer than the life of a job's credential.
_LINK = """
ip link del "$1" 2>/dev/null || true
ip link add "$1" type veth peer name eth0 address "$3" netns "$2"
ip link set "$1" master switch up
"""


def read_log(log: Path) -> str:
    """Return the text of a log file so far, "" if there is none yet."""
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def wait_until(
    what: str, condition: Callable[[], bool], seconds: float, log: Path | None = None
) -> None:
    """Wait until `condition()` is true.

    After `seconds`, raises UserError with the last lines of the file `log`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            last_lines = "; ".join(read_log(log).splitlines()[-3:]) if log else ""
            see_log = f", see {log}: {last_lines}" if log else ""
            raise UserError(f"timed out after {seconds:.0f} s waiting for {what}{see_log}")
        time.sleep(0.02)


def namespaces_work(*, user: bool) -> bool:
    """Return whether this process may create the namespaces of a simulated host.

    With `user`, return whether it may do so inside a new user namespace.
    """
    outer = _ENTER_USER_NAMESPACE if user else []
    trial = "ip link add switch type bridge && ip link add left type veth peer name right"
    command = [*outer, "unshare", *_NAMESPACES, "--fork", "--mount-proc", "sh", "-c", trial]
    return (
        find("ip") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def environment(plan: Plan) -> dict[str, str]:
    """Return the environment variables of the cluster's processes.

    They include the variable `MARK`, by which these processes are found later, but no
    variables of an outer SLURM job.
    """
    outer = ("SLURM", "SLURMD", "SBATCH", "SRUN", "SALLOC", "SACCT", "SQUEUE")
    kept = {name: value for name, value in os.environ.items() if name.split("_")[0] not in outer}
    path = f"{kept.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    return {
        **kept,
        MARK: str(plan.folder),
        "SLURM_CONF": f"{plan.folder}/etc/slurm.conf",
        "PATH": path,
    }


def run(plan: Plan, command: Sequence[str], log: str) -> int:
    """Run a command until it ends or becomes a daemon, and return its exit status.

    A daemon continues in the background. The output of the command is appended to the
    file `log` in the cluster's log folder.
    """
    with open(plan.folder / "log" / log, "ab") as stream:
        done = subprocess.run(
            command,
            env=environment(plan),
            cwd=plan.folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=False,
        )
    return done.returncode


def init_pid(plan: Plan, host: str) -> int:
    """Return the process id of a host's init process, as seen from outside the host.

    Raises UserError if the host is off.
    """
    try:
        pid = int((plan.folder / "run" / f"{host}.init").read_bytes())
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        argv = []
    if os.fsencode(plan.folder) not in argv:
        raise UserError(
            f"{host} is off: run `colortrain devcluster boot {host} --dir {plan.folder}`"
        )
    return pid


def is_on(plan: Plan, host: str) -> bool:
    """Return whether a host is on, that is, whether its init process is running."""
    try:
        return init_pid(plan, host) > 0
    except UserError:
        return False


def command_on_host(
    plan: Plan, host: str, command: Sequence[str], *, network_only: bool = False
) -> list[str]:
    """Return the command line that runs `command` on a host of the cluster.

    A host is a set of Linux namespaces on this machine. With `network_only`, the
    command enters only the host's network namespace, so that it sees this machine's
    mounts and processes. If the cluster does not use namespaces, `command` is returned
    unchanged. Raises UserError if the host is off.
    """
    if not plan.uses_namespaces:
        return list(command)
    namespaces = ["--net"] if network_only else _NAMESPACES
    return ["nsenter", "-t", str(init_pid(plan, host)), *namespaces, "--", *command]


def power_on(plan: Plan, host: str) -> None:
    """Start a host of the cluster: its init process, in new namespaces.

    Raises UserError if the process does not start.
    """
    up, log = plan.folder / "run" / f"{host}.up", plan.folder / "log" / f"{host}.log"
    up.unlink(missing_ok=True)
    unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
    with open(log, "ab") as stream:
        outer = subprocess.Popen(
            [*unshare, "bash", "-c", _INIT, "devcluster-host", host, str(plan.folder)],
            env=environment(plan),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    wait_until(f"host {host}", lambda: up.exists() or outer.poll() is not None, 20, log)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    if outer.poll() is not None or not children.read_bytes().split():
        raise UserError(f"host {host} did not start, see {log}: {read_log(log).strip()}")
    (plan.folder / "run" / f"{host}.init").write_bytes(children.read_bytes().split()[0])


def make_switch(plan: Plan) -> None:
    """Create the network bridge on the head node that connects all nodes."""
    address = plan.head[1]
    # an explicit hardware address, because a bridge otherwise takes that of a link
    add = f"ip link add switch address {hardware_address(address)} type bridge forward_delay 0"
    _shell(plan, plan.head[0], f"{add}; ip addr add {address}/24 dev switch; ip link set switch up")


def connect(plan: Plan, node: str) -> None:
    """Create the network link from a node to the bridge, and set the node's address."""
    address = plan.node_address(node)
    _shell(
        plan,
        plan.head[0],
        _LINK,
        link_name(node),
        str(init_pid(plan, node)),
        hardware_address(address),
    )
    _shell(plan, node, f"ip addr add {address}/24 dev eth0; ip link set eth0 up")


def hardware_address(address: str) -> str:
    """Return the locally administered Ethernet address for an IPv4 address.

    It consists of the bytes 02:00 and the four bytes of the IPv4 address.
    """
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in address.split("."))])


def link_name(node: str) -> str:
    """Return the name of the head node's network interface that leads to a node."""
    return f"to-{node}"


def set_link(plan: Plan, node: str, state: str) -> None:
    """Disconnect or reconnect a node's network; its processes keep running.

    `state` is "down" or "up".
    """
    _shell(plan, plan.head[0], f"ip link set {link_name(node)} {state}")


def power_off(plan: Plan, host: str) -> None:
    """Kill all processes on a host of the cluster at once, like a power failure."""
    pid = init_pid(plan, host)
    os.kill(pid, signal.SIGKILL)
    wait_until(f"{host} to end", lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), 20)


def _is_zombie(pid: int) -> bool:
    try:
        return b") Z" in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True


def _shell(plan: Plan, host: str, script: str, *arguments: str) -> None:
    """Run a shell script in a host's network; raises UserError if the script fails."""
    command = command_on_host(
        plan, host, ["sh", "-ec", script, "sh", *arguments], network_only=True
    )
    if run(plan, command, f"{host}.log"):
        raise UserError(
            f"the network of {host} could not be set up: see {plan.folder}/log/{host}.log"
        )


def user_namespace_command() -> list[str]:
    """Return the start of a command line that runs a command in a new user namespace.

    The command runs as the same user, with all capabilities. It does not run as root of
    the namespace, because SLURM's daemons call setgroups() under uid 0, which is denied
    there.
    """
    return list(_ENTER_USER_NAMESPACE)


def join_user_namespace(pid: int) -> None:
    """Move this process into the user namespace of process `pid`.

    This process also passes all its capabilities on to the programs that it starts (as
    "ambient" capabilities). Raises UserError if the namespace cannot be entered.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/user", "rb") as namespace:
        if libc.setns(namespace.fileno(), 0x10000000):  # CLONE_NEWUSER
            raise UserError(
                f"cannot enter the cluster's user namespace: {os.strerror(ctypes.get_errno())}"
            )
    # _LINUX_CAPABILITY_VERSION_3 and this process
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    capabilities = ctypes.create_string_buffer(24)
    libc.capget(header, capabilities)
    _, permitted_low, _, _, permitted_high, _ = struct.unpack("6I", capabilities.raw)
    masks = (*(permitted_low,) * 3, *(permitted_high,) * 3)
    libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *masks)))
    for number in range(64):
        if (permitted_low | permitted_high << 32) >> number & 1:
            libc.prctl(47, 2, number, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
