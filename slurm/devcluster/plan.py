"""What a development cluster consists of: its hosts, addresses and ports. Kept as DIR/devcluster.json."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError
from shards.files import write_atomic

FILE = "devcluster.json"
HIGH, LOW = "high", "low"  # the partitions; jobs in the first evict jobs in the second
LONGEST_PATH = 80  # of the folder: a socket's path below it may have 107 characters


@dataclass(frozen=True)
class Plan:
    """One cluster. `base_port` is 0 where every host has a network, and so all ports, of its own."""

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
    def own_hosts(self) -> bool:
        """Whether nodes are hosts of their own, in namespaces; otherwise they are daemons on 127.0.0.1."""
        return self.base_port == 0

    @property
    def node_names(self) -> list[str]:
        """node1, node2, ...; on loopback addresses, so that everyone can resolve them without /etc/hosts."""
        return [self._name(number) for number in range(1, self.nodes + 1)]

    def _name(self, number: int) -> str:
        return f"node{number}" if self.own_hosts else f"127.0.0.{10 + number}"

    @property
    def head(self) -> tuple[str, str]:
        """Host name and address of the machine of slurmctld and slurmdbd."""
        if self.own_hosts:
            return "head", "10.77.0.1"
        return socket.gethostname(), loopback_address()

    def port(self, daemon: str) -> int:
        """Where slurmctld, slurmdbd or mariadbd listens."""
        own = {"slurmctld": 6817, "slurmdbd": 6819, "mariadbd": 3306}
        return own[daemon] if self.own_hosts else self.base_port + list(own).index(daemon)

    def node_address(self, name: str) -> str:
        """The address of a node's eth0."""
        return f"10.77.0.{11 + self.node_names.index(name)}"


def loopback_address() -> str:
    """The address this host's name stands for, which daemons bind to, if it is on the loopback; else 127.0.0.1."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
    return address if address.startswith("127.") else "127.0.0.1"


def free_ports(count: int) -> int:
    """The first of `count` ports that nobody listens on, below the range from which connections draw theirs."""
    while True:
        base = random.randrange(10000, 32000, 100)
        if all(_is_free(port) for port in range(base, base + count)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def save(plan: Plan) -> None:
    """Write the plan into its folder."""
    values = {**dataclasses.asdict(plan), "folder": str(plan.folder)}
    write_atomic(plan.folder / FILE, json.dumps(values, indent=1).encode() + b"\n")


def load(folder: Path) -> Plan:
    """The plan of the cluster in `folder`; raises `UserError` where there is none."""
    try:
        values = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        raise UserError(
            f"no cluster in {folder}: python -m slurm.devcluster up --dir {folder}"
        ) from None
    return Plan(**{**values, "folder": Path(values["folder"])})


def check_folder(folder: Path) -> None:
    """Raise `UserError` unless a cluster can live in `folder`."""
    if (folder / FILE).exists():
        raise UserError(
            f"{folder} holds a cluster: python -m slurm.devcluster down --dir {folder}, or another --dir"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: choose another --dir")
    if not re.fullmatch(r"[\w/.+-]+", str(folder)):
        raise UserError(
            f"{folder}: SLURM's own files allow no spaces or special characters there, choose another --dir"
        )
    if len(str(folder)) > LONGEST_PATH:
        raise UserError(
            f"{folder} is longer than {LONGEST_PATH} characters, too long for sockets: choose another --dir"
        )
