"""What a site's cluster is like, from a TOML file, checked before submitting."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from colortrain.serialize import from_plain
from shards.errors import UserError, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True, kw_only=True)
class Container:
    """An image for Pyxis' options of srun; a mount is "outside:inside"."""

    image: str
    mounts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How a job of this site is asked for. Empty words and zeros are left to the site's own defaults.

    There is one process a GPU; without GPUs, `processes` a node with `cpus` each. `memory` is GB a node, `warning` the
    seconds between the signal to save and the time limit, `parallel` the elements of an array that run at a time,
    `max_restarts` the starts in a row that may end without having saved a step: the last of them ends the job.
    `setup` are shell lines before the processes start, `scratch` a folder of each node that becomes TMPDIR, `options`
    more words for sbatch ("--reservation=maintenance").
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    nodes: int = 1
    gpus: int = 0
    processes: int = 1
    cpus: int = 1
    memory: float = 0.0
    minutes: int = 60
    warning: int = 120
    parallel: int = 64
    max_restarts: int = 5
    setup: tuple[str, ...] = ()
    scratch: str = ""
    python: str = ""
    options: tuple[str, ...] = ()
    container: Container | None = None

    @property
    def tasks(self) -> int:
        """Processes of a node."""
        return self.gpus or self.processes

    @property
    def world(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.tasks


def load_cluster(path: Path) -> Cluster:
    """Read a site's file; raises `UserError` naming what does not fit."""
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no site file {path}; write one after an example in {EXAMPLES}") from None
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    cluster: Cluster = from_plain(Cluster, document, str(path))
    _check_numbers(cluster, str(path))
    return cluster


def _check_numbers(cluster: Cluster, where: str) -> None:
    for name in ("nodes", "processes", "cpus", "minutes", "parallel", "max_restarts"):
        if getattr(cluster, name) < 1:
            raise UserError(f"{where}: {name} = {getattr(cluster, name)}: needs at least 1")
    for name in ("gpus", "memory", "warning"):
        if getattr(cluster, name) < 0:
            raise UserError(f"{where}: {name} = {getattr(cluster, name)}: needs at least 0")
    if cluster.warning >= 60 * cluster.minutes:
        raise UserError(
            f"{where}: warning = {cluster.warning} s is not shorter than minutes = {cluster.minutes}"
        )
    for option in cluster.options:
        if not option.startswith("--"):
            raise UserError(
                f"{where}: options: {option!r} is no option of sbatch, write it as --name=value"
            )


@dataclass(frozen=True)
class Partition:
    """What sinfo says of a partition; `minutes` is None where jobs may run for ever. Largest values of its nodes."""

    name: str
    default: bool
    nodes: int
    cpus: int
    megabytes: int
    gpus: int
    features: frozenset[str]
    minutes: int | None


def ask(*words: str) -> str:
    """What a command of SLURM prints; raises `UserError` if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise UserError(f"no SLURM here ({words[0]} not found): run this on a login node") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"SLURM does not answer ({words[0]}, 60 s): try again later") from None
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise UserError(said or f"{words[0]} failed with status {done.returncode}")
    return done.stdout


def here() -> bool:
    """Whether SLURM's commands are on the PATH."""
    return shutil.which("sinfo") is not None


def partitions() -> dict[str, Partition]:
    """All partitions by name; raises `UserError` where there is no SLURM."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "-h", "-o", "%R|%P|%D|%c|%m|%G|%f|%l").splitlines():
        one = _partition(line)
        other = found.get(one.name)
        found[one.name] = _joined(one, other) if other else one
    return found


def _partition(line: str) -> Partition:
    name, starred, nodes, cpus, megabytes, gres, features, limit = line.split("|")
    counts = [int(count) for count in re.findall(r"\bgpu(?::[\w.-]+)??:(\d+)", gres)]
    return Partition(
        name=name,
        default=starred.endswith("*"),
        nodes=int(nodes),
        cpus=_number(cpus),
        megabytes=_number(megabytes),
        gpus=sum(counts),
        features=frozenset(features.split(",")) - {"(null)"},
        minutes=_minutes(limit),
    )


def _joined(one: Partition, other: Partition) -> Partition:
    return Partition(
        name=one.name,
        default=one.default,
        nodes=one.nodes + other.nodes,
        cpus=max(one.cpus, other.cpus),
        megabytes=max(one.megabytes, other.megabytes),
        gpus=max(one.gpus, other.gpus),
        features=one.features | other.features,
        minutes=one.minutes,
    )


def _number(text: str) -> int:
    return int(text.rstrip("+"))  # "64+" where nodes differ


def _minutes(text: str) -> int | None:
    """Of sinfo's [days-]hours:minutes:seconds, "infinite" or "n/a"."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    hours, minutes, _ = [0, 0, 0, *map(int, parts)][-3:]
    return (int(days or 0) * 24 + hours) * 60 + minutes


def check_against_site(cluster: Cluster) -> None:
    """Raise `UserError` if this SLURM has not what the file asks for; errors list what it has."""
    found = partitions()
    default = next((name for name, partition in found.items() if partition.default), "")
    name = cluster.partition or default
    if name not in found:
        raise unknown("partition", name, found)
    _check_size(cluster, found[name])
    for feature in re.findall(r"[A-Za-z_][\w.-]*", cluster.constraint):
        if feature not in found[name].features:
            raise unknown(f"constraint of partition {name}", feature, found[name].features)
    _check_names(cluster)


def _check_size(cluster: Cluster, partition: Partition) -> None:
    asked = {
        "nodes": (cluster.nodes, partition.nodes, "nodes"),
        "gpus": (cluster.gpus, partition.gpus, "GPUs a node"),
        "cpus": (cluster.cpus * cluster.tasks, partition.cpus, "CPUs a node"),
        "memory": (cluster.memory * 1024, partition.megabytes, "MB a node"),
        "minutes": (cluster.minutes, partition.minutes, "minutes"),
    }
    for field, (wanted, most, unit) in asked.items():
        if most is not None and wanted > most:
            raise UserError(
                f"{field}: partition {partition.name} has {most} {unit}, the site file asks for {wanted:g}"
            )


def _check_names(cluster: Cluster) -> None:
    """Account and quality of service, where there is accounting to ask."""
    kinds = {
        "account": (cluster.account, ("assoc", f"user={getpass.getuser()}", "format=account")),
        "qos": (cluster.qos, ("qos", "format=name")),
    }
    for kind, (name, words) in kinds.items():
        if name and shutil.which("sacctmgr"):
            valid = set(ask("sacctmgr", "-nP", "show", *words).split())
            if valid and name not in valid:
                raise unknown(kind, name, valid)
