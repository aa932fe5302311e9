"""Start, look at, break and stop a real SLURM of several nodes on this machine: no systemd, no containers.

python -m slurm.devcluster up && . .devcluster/env && sinfo
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from launch.cli import CommandParser, at_least_one
from shards.errors import UserError, run_command
from slurm.devcluster import hosts, life, plan, programs
from slurm.devcluster.configuration import MOST_GPUS
from slurm.devcluster.plan import HIGH, LOW, Plan

DEFAULT = Path(".devcluster")
_EXAMPLE = f"""\
Nodes are hosts of their own (name, address, processes) for root, and for everybody where user namespaces are allowed;
elsewhere daemons on the loopback. Jobs in partition {HIGH!r} evict and requeue those in {LOW!r}. example:
  python -m slurm.devcluster up
  . .devcluster/env
  srun -N2 hostname
  python -m slurm.devcluster power-off node2
  python -m slurm.devcluster down
"""


class _Action(argparse.ArgumentParser):
    """The parser of one action: its complaints are one line as well."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists the words)")


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("slurm.devcluster", __doc__.splitlines()[0], _EXAMPLE)
    actions = words.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_Action
    )
    start = actions.add_parser("up", help="start a cluster")
    start.add_argument("--nodes", type=at_least_one, default=4, help="default: 4")
    start.add_argument(
        "--cpus",
        type=at_least_one,
        default=4,
        help="of a node, whatever the machine has (default: 4)",
    )
    start.add_argument(
        "--gpus",
        type=int,
        default=2,
        help=f"pretended GPUs of a node, 0 to {MOST_GPUS} (default: 2)",
    )
    start.add_argument(
        "--hosts", choices=("auto", "namespaces", "loopback"), default="auto", help="what a node is"
    )
    start.add_argument(
        "--no-accounting",
        action="store_true",
        help="no database; `sacct` asks the controller instead",
    )
    start.add_argument(
        "--no-user-signal",
        action="store_true",
        help="evicted jobs get TERM alone, not their --signal",
    )
    start.add_argument(
        "--grace", type=at_least_one, default=5, help="seconds an evicted job has (default: 5)"
    )
    start.add_argument(
        "--owner", type=int, metavar="PID", help="take it down when this process is gone"
    )
    everyone = [start, actions.add_parser("down", help="stop it and delete its folder")]
    everyone.append(actions.add_parser("status", help="its nodes and jobs"))
    for event, (_, phrase) in life.EVENTS.items():
        one = actions.add_parser(event, help=phrase)
        one.add_argument("node", help="node1, node2, ...")
        everyone.append(one)
    for one in everyone:
        one.add_argument(
            "--dir", type=Path, default=DEFAULT, help=f"folder of the cluster (default: {DEFAULT})"
        )
    return words


def make_plan(arguments: argparse.Namespace, folder: Path) -> Plan:
    """The cluster asked for, checked against what this machine has and allows."""
    if not 0 <= arguments.gpus <= MOST_GPUS:
        raise UserError(f"--gpus {arguments.gpus}: a node can have 0 to {MOST_GPUS}")
    programs.check(not arguments.no_accounting)
    plan.check_folder(folder)
    loopback = arguments.hosts == "loopback"
    own = not loopback and hosts.namespaces_work(user=False)
    user = not loopback and not own and os.getuid() != 0 and hosts.namespaces_work(user=True)
    if arguments.hosts == "namespaces" and not (own or user):
        raise UserError(
            "this machine allows no namespaces (--hosts namespaces): be root, or take --hosts loopback"
        )
    return Plan(
        folder=folder,
        nodes=arguments.nodes,
        cpus=arguments.cpus,
        gpus=arguments.gpus,
        grace=arguments.grace,
        accounting=not arguments.no_accounting,
        user_signal=not arguments.no_user_signal,
        user_namespace=user,
        base_port=0 if own or user else plan.free_ports(arguments.nodes + 12),
    )


def start(arguments: argparse.Namespace, argv: Sequence[str], folder: Path) -> None:
    """`up`; in a user namespace where this user may make hosts only there."""
    inside = os.environ.pop("COLORTRAIN_IN_USER_NAMESPACE", "")
    cluster = make_plan(arguments, folder)
    if cluster.user_namespace and not inside:
        words = [*hosts.user_namespace_words(), sys.executable, "-m", "slurm.devcluster", *argv]
        os.execvpe(words[0], words, {**os.environ, "COLORTRAIN_IN_USER_NAMESPACE": "yes"})
    began = time.monotonic()
    life.up(Plan(**{**vars(cluster), "user_namespace": bool(inside)}))
    if arguments.owner:
        life.watch(cluster, arguments.owner)
    kind = "hosts in namespaces" if cluster.own_hosts else "daemons on the loopback"
    print(
        f"{cluster.nodes} nodes ({kind}) are up after {time.monotonic() - began:.1f} s; now:  . {folder}/env"
    )


def show(folder: Path) -> int:
    """`status`; 1 if the cluster does not answer."""
    cluster = plan.load(folder)
    tables = (
        ["sinfo", "-N", "-o", "%10N %9P %6T %4c %8G %E"],
        ["squeue", "-o", "%8i %9P %20j %10T %8M %3D %R"],
    )
    for name, *words in tables:
        try:
            line = [f"{cluster.folder}/bin/{name}", *words]
            done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(words, 1, "", "no answer in 20 s")
        if done.returncode:
            print(f"the cluster in {folder} does not answer: {done.stderr.strip()}")
            return 1
        print(done.stdout.rstrip())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the first word says; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(argv)
    folder = arguments.dir.resolve()
    if arguments.action == "up":
        start(arguments, argv, folder)
    elif arguments.action == "down":
        print(f"{folder} is down" if life.down(folder) else f"no cluster in {folder}")
    elif arguments.action == "status":
        return show(folder)
    else:
        life.befall(plan.load(folder), arguments.action, arguments.node)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.devcluster", main))
