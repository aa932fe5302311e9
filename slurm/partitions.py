"""The partitions of a cluster, as SLURM's sinfo lists them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from slurm.commands import run_slurm


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo describes it.

    `node_kinds` are the CPUs and GPUs of its nodes, one pair for each kind of node.
    `megabytes` is the memory of the largest node. `minutes` is the time limit, or None
    if the partition has none.
    """

    name: str
    default: bool
    nodes: int
    node_kinds: frozenset[tuple[int, int]]
    megabytes: int
    features: frozenset[str]
    minutes: int | None

    @property
    def cpus(self) -> int:
        """Largest number of CPUs that a node has."""
        return max(cpus for cpus, _ in self.node_kinds)

    @property
    def gpus(self) -> int:
        """Largest number of GPUs that a node has."""
        return max(gpus for _, gpus in self.node_kinds)

    def cpus_per_gpu(self, gpus: int) -> int:
        """Return how many CPUs there are per GPU on nodes with `gpus` GPUs or more.

        It is the smallest number among these nodes, and at least 1.
        """
        shares = [
            node_cpus // node_gpus
            for node_cpus, node_gpus in self.node_kinds
            if node_gpus >= max(gpus, 1)
        ]
        return max(1, min(shares, default=1))


def slurm_available() -> bool:
    """Return whether SLURM's commands are on the PATH."""
    return shutil.which("sinfo") is not None


def query_partitions() -> dict[str, Partition]:
    """Return all partitions of the cluster, as {name: partition}.

    Raises UserError where SLURM is not available.
    """
    partitions: dict[str, Partition] = {}
    # without --exact, nodes that differ share a line with the CPUs of the smallest
    command = ("sinfo", "--noheader", "--exact", "-o", "%R|%P|%D|%c|%m|%G|%f|%l")
    for line in run_slurm(*command).splitlines():
        partition = _parse_partition(line)
        known = partitions.get(partition.name)
        partitions[partition.name] = _merge(partition, known) if known else partition
    return partitions


def _parse_partition(line: str) -> Partition:
    name, starred, nodes, cpus, megabytes, gres, features, limit = line.split("|")
    return Partition(
        name=name,
        default=starred.endswith("*"),
        nodes=int(nodes),
        node_kinds=frozenset({(_parse_count(cpus), count_gpus(gres))}),
        megabytes=_parse_count(megabytes),
        features=frozenset(features.split(",")) - {"(null)"},
        minutes=_parse_minutes(limit),
    )


def count_gpus(gres: str) -> int:
    """Return the number of GPUs in a list of generic resources, as SLURM prints it.

    The list is that of a node's Gres or TRES, for example
    "gpu:a100:4(S:0-1),gpu:1g.10gb:7,ssd:1" or "cpu=64,gres/gpu=4,gres/gpu:a100=4". A
    type may consist of digits ("gpu:3090:4"), and a MIG slice counts as a GPU. An entry
    without a count is one GPU. See https://slurm.schedmd.com/gres.html.
    """
    entries = re.sub(r"\([^)]*\)", "", gres).split(",")  # without sockets: (S:1,3)
    fields = [re.split("[:=]", entry.removeprefix("gres/")) for entry in entries]
    gpus = [field for field in fields if field[0] == "gpu"]
    if "gres/gpu=" in gres:  # this entry is the total of those with a type
        gpus = [field for field in gpus if len(field) == 2]
    return sum(int(field[-1]) if field[-1].isdigit() else 1 for field in gpus)


def _merge(first: Partition, second: Partition) -> Partition:
    """Combine two descriptions of one partition into one.

    sinfo prints one line for each group of equal nodes in a partition.
    """
    return Partition(
        name=first.name,
        default=first.default,
        nodes=first.nodes + second.nodes,
        node_kinds=first.node_kinds | second.node_kinds,
        megabytes=max(first.megabytes, second.megabytes),
        features=first.features | second.features,
        minutes=first.minutes,
    )


def _parse_count(text: str) -> int:
    return int(text.rstrip("+"))  # "64+" where the nodes of a line differ


def _parse_minutes(text: str) -> int | None:
    """Convert sinfo's time limit, [days-]hours:minutes:seconds, to minutes.

    Returns None for "infinite" and "n/a".
    """
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    hours, minutes, _ = [0, 0, 0, *map(int, parts)][-3:]
    return (int(days or 0) * 24 + hours) * 60 + minutes
