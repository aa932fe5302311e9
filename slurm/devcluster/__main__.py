"""Run a real SLURM cluster on this machine, without systemd or containers.

colortrain devcluster up && . .devcluster/env && sinfo
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
from slurm.devcluster import hosts, lifecycle, plan, programs
from slurm.devcluster.configuration import MAX_GPUS
from slurm.devcluster.plan import HIGH, LOW, Plan

DEFAULT_FOLDER = Path(".devcluster")
_EXAMPLE = f"""\
For root, and where user namespaces are allowed, each node is a separate host with its own name,
address and processes; otherwise the nodes are daemons on the loopback interface. Jobs in
partition {HIGH!r} evict and requeue jobs in partition {LOW!r}.

example:
  colortrain devcluster up
  . .devcluster/env
  srun -N2 hostname
  colortrain devcluster power-off node2
  colortrain devcluster down
"""


class _ActionParser(argparse.ArgumentParser):
    """The argument parser of one action of `colortrain devcluster`, for example `up`.

    It raises UserError for invalid arguments.
    """

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain devcluster` with all its actions."""
    parser = CommandParser("slurm.devcluster", __doc__.splitlines()[0], _EXAMPLE)
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_ActionParser
    )
    action_parsers = [actions.add_parser("up", help="start a cluster")]
    _add_up_options(action_parsers[0])
    action_parsers.append(actions.add_parser("down", help="stop the cluster and delete its folder"))
    action_parsers.append(actions.add_parser("status", help="show its nodes and jobs"))
    for event, (_, description) in lifecycle.EVENTS.items():
        action_parsers.append(actions.add_parser(event, help=description))
        action_parsers[-1].add_argument("node", help="node1, node2, ...")
    for action_parser in action_parsers:
        action_parser.add_argument(
            "--dir",
            type=Path,
            default=DEFAULT_FOLDER,
            help=f"folder of the cluster (default: {DEFAULT_FOLDER})",
        )
    return parser


def _add_up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes", type=at_least_one, default=4, help="number of nodes (default: 4)"
    )
    parser.add_argument(
        "--cpus",
        type=at_least_one,
        default=4,
        help="CPUs per node, however many the machine has (default: 4)",
    )
    parser.add_argument(
        "--gpus",
        type=int,
        default=2,
        help=f"simulated GPUs per node, 0 to {MAX_GPUS} (default: 2)",
    )
    parser.add_argument(
        "--hosts",
        choices=("auto", "namespaces", "loopback"),
        default="auto",
        help="make nodes hosts in namespaces, or daemons on the loopback interface (default: auto, "
        "namespaces if they are allowed)",
    )
    parser.add_argument(
        "--no-accounting",
        action="store_true",
        help="start no accounting database; `sacct` queries the controller instead",
    )
    parser.add_argument(
        "--no-user-signal",
        action="store_true",
        help="send evicted jobs only TERM, not the signal of their --signal option",
    )
    parser.add_argument(
        "--grace",
        type=at_least_one,
        default=5,
        help="seconds between the signal to an evicted job and its end (default: 5)",
    )
    parser.add_argument(
        "--owner", type=int, metavar="PID", help="stop the cluster when the process PID has ended"
    )


def make_plan(args: argparse.Namespace, folder: Path) -> Plan:
    """Check this machine and return the plan of the cluster that `args` requests.

    Raises UserError if a program is missing, the folder is not suitable, or namespaces
    are requested but not allowed.
    """
    if not 0 <= args.gpus <= MAX_GPUS:
        raise UserError(f"--gpus {args.gpus}: must be from 0 to {MAX_GPUS}")
    programs.check(not args.no_accounting)
    plan.check_folder(folder)
    loopback = args.hosts == "loopback"
    as_root = not loopback and hosts.namespaces_work(user=False)
    in_user_namespace = (
        not loopback and not as_root and os.getuid() != 0 and hosts.namespaces_work(user=True)
    )
    if args.hosts == "namespaces" and not (as_root or in_user_namespace):
        raise UserError(
            "--hosts namespaces: this machine does not allow this user to create namespaces: "
            "run as root, or use --hosts loopback"
        )
    return Plan(
        folder=folder,
        nodes=args.nodes,
        cpus=args.cpus,
        gpus=args.gpus,
        grace=args.grace,
        accounting=not args.no_accounting,
        user_signal=not args.no_user_signal,
        user_namespace=in_user_namespace,
        base_port=0 if as_root or in_user_namespace else plan.free_ports(args.nodes + 12),
    )


def start(args: argparse.Namespace, argv: Sequence[str], folder: Path) -> None:
    """Start a cluster: the action `up`.

    If this user may create namespaces only inside a user namespace, this re-executes
    the command in one. Raises UserError if a program is missing, the folder is not
    suitable, namespaces are not allowed, or a daemon does not start.
    """
    inside = os.environ.pop("COLORTRAIN_IN_USER_NAMESPACE", "")
    cluster = make_plan(args, folder)
    if cluster.user_namespace and not inside:
        command = [*hosts.user_namespace_command(), sys.executable, "-m", "slurm.devcluster", *argv]
        os.execvpe(command[0], command, {**os.environ, "COLORTRAIN_IN_USER_NAMESPACE": "yes"})
    start_time = time.monotonic()
    lifecycle.start_cluster(Plan(**{**vars(cluster), "user_namespace": bool(inside)}))
    if args.owner:
        lifecycle.stop_with_owner(cluster, args.owner)
    kind = "hosts in namespaces" if cluster.uses_namespaces else "daemons on the loopback"
    print(
        f"{cluster.nodes} nodes ({kind}) are up after {time.monotonic() - start_time:.1f} s; "
        f"to use them, run: . {folder}/env"
    )


def show_status(folder: Path) -> int:
    """Print the nodes and the jobs of a cluster: the action `status`.

    Returns the exit status: 1 if the cluster does not respond, else 0.
    """
    cluster = plan.load(folder)
    queries = (
        ["sinfo", "-N", "-o", "%10N %9P %6T %4c %8G %E"],
        ["squeue", "-o", "%8i %9P %20j %10T %8M %3D %R"],
    )
    for name, *options in queries:
        try:
            command = [f"{cluster.folder}/bin/{name}", *options]
            done = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=20,
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(options, 1, "", f"{name} timed out after 20 s")
        if done.returncode:
            print(f"the cluster in {folder} does not respond: {done.stderr.strip()}")
            return 1
        print(done.stdout.rstrip())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the requested action (up, down, status, ...) and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(argv)
    folder = args.dir.resolve()
    if args.action == "up":
        start(args, argv, folder)
    elif args.action == "down":
        stopped = lifecycle.stop_cluster(folder)
        print(f"{folder} is down" if stopped else f"no cluster in {folder}")
    elif args.action == "status":
        return show_status(folder)
    else:
        lifecycle.inject_event(plan.load(folder), args.action, args.node)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.devcluster", main))
