"""The hosts of a cluster: each a process 1 in network, name, mount and process namespaces of its own."""

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

_SPACES = ["--net", "--uts", "--mount", "--pid"]
_INTO_USER_NAMESPACE = ["unshare", "--user", "--map-current-user", "--keep-caps"]

# Process 1 of a host: killing it kills all that runs there, at once, like a power cut. It sees the hosts' names in
# /etc/hosts, and the nodes' own commands where everybody else finds those that first enter the head. Last it only
# waits, which makes bash bury orphans.
_PROCESS_1 = r"""
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

# A node's cable to the head's switch. A node keeps its hardware address when it is booted again, as a real one does:
# the others remember it, and would send to a new one's old address for eight seconds, longer than a job's credential.
_CABLE = """
ip link del "$1" 2>/dev/null || true
ip link add "$1" type veth peer name eth0 address "$3" netns "$2"
ip link set "$1" master switch up
"""


def wait_until(
    what: str, done: Callable[[], bool], seconds: float, log: Path | None = None
) -> None:
    """Wait for `done()`; raises `UserError` with the log's last lines after `seconds`."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            said = (
                "; ".join(log.read_text(errors="replace").splitlines()[-3:])
                if log and log.exists()
                else ""
            )
            raise UserError(
                f"{what}: not there after {seconds:.0f} s{f', see {log}: {said}' if log else ''}"
            )
        time.sleep(0.02)


def namespaces_work(*, user: bool) -> bool:
    """Whether this process may make hosts, with a user namespace around them or without."""
    around = _INTO_USER_NAMESPACE if user else []
    trial = "ip link add switch type bridge && ip link add left type veth peer name right"
    words = [*around, "unshare", *_SPACES, "--fork", "--mount-proc", "sh", "-c", trial]
    return (
        find("ip") is not None
        and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


def environment(plan: Plan) -> dict[str, str]:
    """Of every process of the cluster: marked as its own, free of an outer SLURM's variables."""
    outer = ("SLURM", "SLURMD", "SBATCH", "SRUN", "SALLOC", "SACCT", "SQUEUE")
    kept = {name: value for name, value in os.environ.items() if name.split("_")[0] not in outer}
    path = f"{kept.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    return {
        **kept,
        MARK: str(plan.folder),
        "SLURM_CONF": f"{plan.folder}/etc/slurm.conf",
        "PATH": path,
    }


def run(plan: Plan, words: Sequence[str], log: str) -> int:
    """Run a command that comes to an end (a daemon that goes to the background), its output into DIR/log."""
    with open(plan.folder / "log" / log, "ab") as stream:
        done = subprocess.run(
            words,
            env=environment(plan),
            cwd=plan.folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=False,
        )
    return done.returncode


def process_1(plan: Plan, host: str) -> int:
    """The process number, as seen from outside, of a host's process 1; raises `UserError` if the host is off."""
    try:
        number = int((plan.folder / "run" / f"{host}.init").read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        words = []
    if os.fsencode(plan.folder) not in words:
        raise UserError(
            f"{host} is off: python -m slurm.devcluster boot {host} --dir {plan.folder}"
        )
    return number


def is_on(plan: Plan, host: str) -> bool:
    """Whether a host has a process 1."""
    try:
        return process_1(plan, host) > 0
    except UserError:
        return False


def inside(plan: Plan, host: str, words: Sequence[str], *, network_only: bool = False) -> list[str]:
    """The command that runs `words` on a host."""
    if not plan.own_hosts:
        return list(words)
    spaces = ["--net"] if network_only else _SPACES
    return ["nsenter", "-t", str(process_1(plan, host)), *spaces, "--", *words]


def power_on(plan: Plan, host: str) -> None:
    """Start a host's process 1."""
    up, log = plan.folder / "run" / f"{host}.up", plan.folder / "log" / f"{host}.log"
    up.unlink(missing_ok=True)
    words = ["unshare", *_SPACES, "--fork", "--kill-child", "--mount-proc"]
    with open(log, "ab") as stream:
        outer = subprocess.Popen(
            [*words, "bash", "-c", _PROCESS_1, "devcluster-host", host, str(plan.folder)],
            env=environment(plan),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    wait_until(f"host {host}", lambda: up.exists() or outer.poll() is not None, 20, log)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    if outer.poll() is not None or not children.read_text().split():
        raise UserError(
            f"host {host} did not start, see {log}: {log.read_text(errors='replace').strip()}"
        )
    (plan.folder / "run" / f"{host}.init").write_text(children.read_text().split()[0])


def make_switch(plan: Plan) -> None:
    """The bridge in the head's network that all cables end in."""
    address = plan.head[1]
    add = f"ip link add switch address {hardware_address(address)} type bridge forward_delay 0"  # or it takes a cable's
    _shell(plan, plan.head[0], f"{add}; ip addr add {address}/24 dev switch; ip link set switch up")


def connect(plan: Plan, node: str) -> None:
    """Lay a node's cable and give it its address."""
    address = plan.node_address(node)
    _shell(
        plan,
        plan.head[0],
        _CABLE,
        cable(node),
        str(process_1(plan, node)),
        hardware_address(address),
    )
    _shell(plan, node, f"ip addr add {address}/24 dev eth0; ip link set eth0 up")


def hardware_address(address: str) -> str:
    """The Ethernet address that goes with an IPv4 address: always the same, locally administered."""
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in address.split("."))])


def cable(node: str) -> str:
    """The name of the head's end of a node's cable."""
    return f"to-{node}"


def set_cable(plan: Plan, node: str, state: str) -> None:
    """Pull a node's cable ("down") or plug it in ("up"): its processes live on either way."""
    _shell(plan, plan.head[0], f"ip link set {cable(node)} {state}")


def power_off(plan: Plan, host: str) -> None:
    """A power cut: all that runs on a host is gone at once."""
    number = process_1(plan, host)
    os.kill(number, signal.SIGKILL)
    wait_until(
        f"{host}'s end", lambda: not Path(f"/proc/{number}").exists() or _is_zombie(number), 20
    )


def _is_zombie(number: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return True


def _shell(plan: Plan, host: str, text: str, *words: str) -> None:
    line = inside(plan, host, ["sh", "-ec", text, "sh", *words], network_only=True)
    if run(plan, line, f"{host}.log"):
        raise UserError(
            f"{host}: its network could not be set up, see {plan.folder}/log/{host}.log"
        )


def user_namespace_words() -> list[str]:
    """What to put before a command so that it runs in a new user namespace: as the same user, with all capabilities.

    Not as its root: daemons of SLURM run by uid 0 call setgroups(), which is denied there.
    """
    return list(_INTO_USER_NAMESPACE)


def join_user_namespace(number: int) -> None:
    """Move this process into the user namespace of process `number`, with capabilities that its children keep."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{number}/ns/user") as space:
        if libc.setns(space.fileno(), 0x10000000):  # CLONE_NEWUSER
            raise UserError(
                f"cannot enter the cluster's user namespace: {os.strerror(ctypes.get_errno())}"
            )
    header = ctypes.create_string_buffer(
        struct.pack("Ii", 0x20080522, 0)
    )  # _LINUX_CAPABILITY_VERSION_3, this process
    caps = ctypes.create_string_buffer(24)
    libc.capget(header, caps)
    _, permitted_low, _, _, permitted_high, _ = struct.unpack("6I", caps.raw)
    words = (
        permitted_low,
        permitted_low,
        permitted_low,
        permitted_high,
        permitted_high,
        permitted_high,
    )
    libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *words)))
    for number in range(64):
        if (permitted_low | permitted_high << 32) >> number & 1:
            libc.prctl(47, 2, number, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
