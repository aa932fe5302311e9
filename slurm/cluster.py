"""The site file: a TOML file that describes a cluster and what jobs request from it.

It is checked against the partitions and accounts that SLURM reports.
"""

from __future__ import annotations

import getpass
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from colortrain.serialize import from_plain
from shards.errors import UserError, unknown
from slurm.commands import run_slurm
from slurm.partitions import Partition, query_partitions, slurm_available

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container image in which srun starts the processes, by means of Pyxis.

    `mounts` have the form "path on the node:path in the container". `options` are
    further options of srun.
    """

    image: str
    mounts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The content of a site file: what each job requests, and how its processes start.

    `slurm.batch` turns the fields into parameters of jobs: a new field must be used
    there, or it would be accepted and ignored. `slurm.submit` describes the fields in
    its help.
    """

    # SLURM's options of the same names; "" means the default of the site
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    nodes: int = 1
    gpus: int = 0  # per node, with one process per GPU
    processes: int = 1  # per node, if `gpus` is 0
    cpus: int = 0  # per process; 0 means a GPU's part of a node's CPUs, without GPUs 1
    memory: float = 0.0  # GB per node; 0 means the default of the site
    minutes: int = 60  # time limit of a job
    warning: int = 120  # seconds between the signal to save and the time limit
    parallel: int = 64  # array tasks that run at the same time
    max_restarts: int = 5  # consecutive starts without a new checkpoint that end a job
    setup: tuple[str, ...] = ()  # shell lines that run before the processes start
    scratch: str = ""  # folder on each node that becomes TMPDIR
    python: str = ""  # command of the interpreter; "" means the one that submits
    options: tuple[str, ...] = ()  # of sbatch, such as "--reservation=maintenance"
    container: Container | None = None

    @property
    def tasks_per_node(self) -> int:
        """Number of processes on each node."""
        return self.gpus or self.processes

    @property
    def world_size(self) -> int:
        """Number of processes on all nodes together."""
        return self.nodes * self.tasks_per_node


def load_cluster(path: Path) -> Cluster:
    """Read and check a site file, the TOML file that describes a cluster.

    Raises UserError if the file is missing or is not TOML, or if a field is unknown or
    has an invalid value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no site file {path}: copy and edit one of the examples in {EXAMPLES}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    cluster: Cluster = from_plain(Cluster, document, str(path))
    _check_values(cluster, str(path))
    return cluster


def _check_values(cluster: Cluster, where: str) -> None:
    for name in ("nodes", "processes", "minutes", "parallel", "max_restarts"):
        if getattr(cluster, name) < 1:
            raise UserError(f"{where}: {name} = {getattr(cluster, name)}: must be at least 1")
    for name in ("gpus", "cpus", "memory", "warning"):
        if getattr(cluster, name) < 0:
            raise UserError(f"{where}: {name} = {getattr(cluster, name)}: must be at least 0")
    if cluster.warning >= 60 * cluster.minutes:
        raise UserError(
            f"{where}: warning = {cluster.warning} (seconds) must be shorter than "
            f"minutes = {cluster.minutes}"
        )
    for option in cluster.options:
        if not option.startswith("--"):
            raise UserError(f"{where}: options: {option!r} must start with --, as in --name=value")


def resolve_on_site(cluster: Cluster, *, required: bool = True) -> Cluster:
    """Return the content of a site file with its number of CPUs per process.

    If the site file does not set `cpus`, a process with a GPU gets the node's CPUs
    divided by the node's GPUs, and a process without one gets 1.

    Raises UserError, which lists what is available, if SLURM does not have the
    partition or the resources that the site file requests, or where SLURM is not
    available. Unless `required`, the content is then not checked, and `cpus` stays 0 if
    it depends on the node.
    """
    if not cluster.gpus:
        cluster = replace(cluster, cpus=cluster.cpus or 1)
    if not required and not slurm_available():
        print("SLURM is not available here: the site file is not checked", file=sys.stderr)
        return cluster
    partition = _check_against_site(cluster)
    return replace(cluster, cpus=cluster.cpus or partition.cpus_per_gpu(cluster.gpus))


def _check_against_site(cluster: Cluster) -> Partition:
    """Check the requests of a site file against SLURM, and return its partition.

    `cluster` is the content of the site file. Raises UserError, which lists what is
    available, if SLURM does not have them.
    """
    partitions = query_partitions()
    default = next((name for name, partition in partitions.items() if partition.default), "")
    name = cluster.partition or default
    if name not in partitions:
        raise unknown("partition", name, partitions)
    _check_size(cluster, partitions[name])
    for feature in re.findall(r"[A-Za-z_][\w.-]*", cluster.constraint):
        if feature not in partitions[name].features:
            raise unknown(f"constraint of partition {name}", feature, partitions[name].features)
    _check_accounting(cluster)
    return partitions[name]


def _check_size(cluster: Cluster, partition: Partition) -> None:
    limits = {
        "nodes": (cluster.nodes, partition.nodes, "nodes"),
        "gpus": (cluster.gpus, partition.gpus, "GPUs per node"),
        "cpus": (cluster.cpus * cluster.tasks_per_node, partition.cpus, "CPUs per node"),
        "memory": (cluster.memory * 1024, partition.megabytes, "MB per node"),
        "minutes": (cluster.minutes, partition.minutes, "minutes"),
    }
    for field, (requested, limit, unit) in limits.items():
        if limit is not None and requested > limit:
            raise UserError(
                f"{field}: partition {partition.name} has {limit} {unit}, "
                f"but the site file requests {requested:g}"
            )


def _check_accounting(cluster: Cluster) -> None:
    """Raise UserError if SLURM does not know the account or quality of service.

    Both are checked only where SLURM has an accounting database.
    """
    queries = {
        "account": (cluster.account, ("assoc", f"user={getpass.getuser()}", "format=account")),
        "qos": (cluster.qos, ("qos", "format=name")),
    }
    for kind, (name, query) in queries.items():
        if name and shutil.which("sacctmgr"):
            valid = set(run_slurm("sacctmgr", "-nP", "show", *query).split())
            if valid and name not in valid:
                raise unknown(kind, name, valid)
