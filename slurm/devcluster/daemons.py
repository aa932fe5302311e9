"""Start munged, mariadbd, slurmdbd, slurmctld and the slurmds of a development cluster.

They are started in this order. Each function returns when its daemon is ready.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from shards.errors import UserError
from slurm.devcluster.hosts import command_on_host, environment, read_log, run, wait_until
from slurm.devcluster.plan import HIGH, Plan
from slurm.devcluster.programs import program


def link_programs(plan: Plan) -> None:
    """Create the folder `sbin` in the cluster's folder, with links to SLURM's daemons.

    The links have the names without Debian's suffix `-wlm`. SLURM derives from argv[0]
    which daemon it is, and would crash under the name `slurmctld-wlm` when slurmdbd is
    used.
    """
    (plan.folder / "sbin").mkdir(exist_ok=True)
    for name in ("slurmctld", "slurmd", "slurmstepd"):
        (plan.folder / "sbin" / name).symlink_to(program(name))


def _start(plan: Plan, host: str, name: str, command: list[str]) -> None:
    log = plan.folder / "log" / f"{name}.out"
    if run(plan, command_on_host(plan, host, command), log.name):
        raise UserError(f"{name} did not start, see {log}: {read_log(log).strip()[-300:]}")


def start_munged(plan: Plan) -> None:
    """Start munged, which signs SLURM's credentials, with its own key and socket."""
    run_folder, log = plan.folder / "run", plan.folder / "log" / "munged.log"
    options = {
        "key-file": plan.folder / "etc/munge.key",
        "socket": run_folder / "munge.sock",
        "log-file": log,
        "pid-file": run_folder / "munged.pid",
        "seed-file": run_folder / "munged.seed",
        "num-threads": 4,
    }
    command = [program("munged"), "--force", *_long_options(options)]
    _start(plan, plan.head[0], "munged", command)


def _long_options(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def start_accounting(plan: Plan) -> None:
    """Start mariadbd and slurmdbd, the accounting database that sacct queries."""
    _create_database(plan)
    _start_mariadbd(plan)
    configuration = f"SLURM_CONF={plan.folder}/etc/slurmdbd.conf"
    _start(plan, plan.head[0], "slurmdbd", ["env", configuration, program("slurmdbd")])
    _wait_for_port(plan, "slurmdbd", plan.head[1])


def _start_mariadbd(plan: Plan) -> None:
    log = plan.folder / "log/mariadbd.log"
    options = {
        "datadir": plan.folder / "mysql",
        "socket": plan.folder / "run/mysql.sock",
        "bind-address": "127.0.0.1",
        "pid-file": plan.folder / "run/mariadbd.pid",
        "port": plan.port("mariadbd"),
        "init-file": plan.folder / "etc/database.sql",
        "log-error": log,
        "innodb-buffer-pool-size": "16M",
        "innodb-log-file-size": "8M",
        "innodb-lock-wait-timeout": 900,
        "innodb-flush-log-at-trx-commit": 0,
        "key-buffer-size": "1M",
        "aria-pagecache-buffer-size": "8M",
    }
    command = [
        *_with_own_tmpdir(plan),
        program("mariadbd"),
        "--no-defaults",
        _user_option(),
        "--skip-name-resolve",
        "--performance-schema=off",
        *_long_options(options),
    ]
    # mariadbd stays in the foreground; `&` makes it a child of the host's init process
    _start(plan, plan.head[0], "mariadbd", ["sh", "-c", 'setsid "$@" &', "sh", *command])
    # Wait for the log, not the port: the port answers before the init file, which
    # creates slurmdbd's user, has been read.
    ready = "ready for connections"
    wait_until("mariadbd", lambda: ready in read_log(log), 120, log)


def _with_own_tmpdir(plan: Plan) -> list[str]:
    """Return the beginning of a command line, which sets TMPDIR to a cluster's folder.

    mariadbd is started in this way, because at its start it deletes all temporary
    tables in its TMPDIR. In /tmp, these may belong to other clusters.
    """
    (plan.folder / "tmp").mkdir(exist_ok=True)
    return ["env", f"TMPDIR={plan.folder}/tmp"]


def _user_option() -> str:
    return "--user=root" if os.getuid() == 0 else f"--user={getpass.getuser()}"


def _create_database(plan: Plan) -> None:
    command = [
        *_with_own_tmpdir(plan),
        program("mariadb-install-db"),
        "--no-defaults",
        _user_option(),
        f"--datadir={plan.folder}/mysql",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]
    if run(plan, command, "mariadb-install.log"):
        raise UserError(
            "the accounting database could not be created, "
            f"see {plan.folder}/log/mariadb-install.log"
        )


def _wait_for_port(plan: Plan, daemon: str, address: str) -> None:
    """Wait until a daemon listens on its port.

    Otherwise, a client that connects too early would wait for seconds before it
    retries.
    """
    host, port = plan.head[0], plan.port(daemon)

    def listens() -> bool:
        if not plan.uses_namespaces:
            with socket.socket() as probe:
                return probe.connect_ex((address, port)) == 0
        command = command_on_host(
            plan, host, ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"], network_only=True
        )
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    wait_until(daemon, listens, 120, plan.folder / "log" / f"{daemon}.log")


def start_controller(plan: Plan) -> None:
    """Start slurmctld, SLURM's controller."""
    command = [f"{plan.folder}/sbin/slurmctld", "-f", f"{plan.folder}/etc/slurm.conf"]
    _start(plan, plan.head[0], "slurmctld", command)
    _wait_for_port(plan, "slurmctld", plan.head[1])


def start_node(plan: Plan, node: str, *, rebooted: bool = False) -> None:
    """Start slurmd, SLURM's daemon on each node, for one node.

    With `rebooted`, slurmd reports to the controller that the node was restarted, so
    that the controller knows that all earlier processes there are gone.
    """
    command = [f"{plan.folder}/sbin/slurmd", *(["-b"] if rebooted else [])]
    command += ["-f", f"{plan.folder}/etc/slurm.conf", "-d", f"{plan.folder}/sbin/slurmstepd"]
    if not plan.uses_namespaces:
        command += ["-N", node]
    _start(plan, node, f"slurmd-{node}", command)


def idle_nodes(plan: Plan) -> list[str]:
    """Return the names of the nodes that could run a job now."""
    command = command_on_host(
        plan,
        plan.head[0],
        [f"{plan.folder}/nodebin/sinfo", "-h", "-N", "-p", HIGH, "-t", "idle", "-o", "%N"],
    )
    try:
        done = subprocess.run(
            command,
            env=environment(plan),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.split()


def wait_for_nodes(plan: Plan) -> None:
    """Wait until every node is idle. Raises UserError if that takes more than 120 s."""
    log = Path(plan.folder / "log" / "slurmctld.log")
    wait_until(f"{plan.nodes} idle nodes", lambda: len(idle_nodes(plan)) == plan.nodes, 120, log)
