"""The plan of a development cluster: its hosts, addresses and ports.

The plan is stored in devcluster.json in the cluster's folder.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from shards.errors import UserError
from shards.files import write_atomic
from shards.json_files import read_json

FILE = "devcluster.json"
HIGH, LOW = "high", "low"  # partitions; jobs in HIGH evict jobs in LOW
MAX_PATH = 80  # characters of the folder's path: a socket's path below it may have 107


@dataclass(frozen=True)
class Plan:
    """The parameters of one development cluster.

    `base_port` is the first port of the daemons. It is 0 if every host has its own
    network, where the daemons use SLURM's usual ports.
    """

    folder: Path
    nodes: int = 4
    cpus: int = 4
    gpus: int = 2
    accounting: bool = True
    user_signal: bool = True
    grace: int = 5
    user_namespace: bool = False
    base_port: int = 0

    @property
    def uses_namespaces(self) -> bool:
        """Whether each node is a simulated host, made of Linux namespaces.

        Otherwise the nodes are only daemons, which all use the loopback interface.
        """
        return self.base_port == 0

    @property
    def node_names(self) -> list[str]:
        """Names of the nodes: node1, node2, ..., or 127.0.0.11, 127.0.0.12, ...

        The second form is used if the cluster does not use namespaces. Names that are
        loopback addresses need no entries in /etc/hosts.
        """
        return [self._name(number) for number in range(1, self.nodes + 1)]

    def _name(self, number: int) -> str:
        return f"node{number}" if self.uses_namespaces else f"127.0.0.{10 + number}"

    @property
    def head(self) -> tuple[str, str]:
        """Name and address of the head node, where slurmctld and slurmdbd run."""
        if self.uses_namespaces:
            return "head", "10.77.0.1"
        return socket.gethostname(), loopback_address()

    def port(self, daemon: str) -> int:
        """Return the port of `daemon`: slurmctld, slurmdbd or mariadbd."""
        defaults = {"slurmctld": 6817, "slurmdbd": 6819, "mariadbd": 3306}
        if self.uses_namespaces:
            return defaults[daemon]
        return self.base_port + list(defaults).index(daemon)

    def node_address(self, name: str) -> str:
        """Return the IPv4 address of a node's network interface, eth0."""
        return f"10.77.0.{11 + self.node_names.index(name)}"


def loopback_address() -> str:
    """Return the loopback address that this machine's host name resolves to.

    Returns 127.0.0.1 if it resolves to no loopback address. SLURM's daemons bind to the
    address of the host name.
    """
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
    return address if address.startswith("127.") else "127.0.0.1"


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive ports that are all free.

    They are below the range that the kernel uses for outgoing connections.
    """
    while True:
        base = random.randrange(10000, 32000, 100)
        if all(_is_free(port) for port in range(base, base + count)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class _Values(TypedDict):
    folder: str
    nodes: int
    cpus: int
    gpus: int
    accounting: bool
    user_signal: bool
    grace: int
    user_namespace: bool
    base_port: int


def save(plan: Plan) -> None:
    """Write the plan to devcluster.json in the cluster's folder."""
    values = {**dataclasses.asdict(plan), "folder": str(plan.folder)}
    write_atomic(plan.folder / FILE, json.dumps(values, indent=1).encode() + b"\n")


def load(folder: Path) -> Plan:
    """Read the plan of the cluster in `folder`. Raises UserError if there is none."""
    advice = f"stop its processes and delete {folder}"
    try:
        values = read_json(folder / FILE, _Values, advice)
    except FileNotFoundError:
        raise UserError(
            f"there is no cluster in {folder}: start one with "
            f"`colortrain devcluster up --dir {folder}`"
        ) from None
    try:
        return Plan(**{**values, "folder": Path(values["folder"])})
    except TypeError as error:
        raise UserError(f"{folder / FILE} is damaged ({error}): {advice}") from None


def check_folder(folder: Path) -> None:
    """Raise UserError unless a cluster can be created in `folder`."""
    if (folder / FILE).exists():
        raise UserError(
            f"{folder} holds a cluster: stop it with `colortrain devcluster down --dir {folder}`, "
            "or choose another --dir"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: choose another --dir")
    if not re.fullmatch(r"[\w/.+-]+", str(folder)):
        raise UserError(
            f"{folder}: SLURM's files allow no spaces or special characters in this path: "
            "choose another --dir"
        )
    if len(str(folder)) > MAX_PATH:
        raise UserError(
            f"{folder} is longer than {MAX_PATH} characters, too long for the path of a socket: "
            "choose another --dir"
        )
