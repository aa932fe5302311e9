"""munged, mariadbd, slurmdbd, slurmctld and slurmds: started in this order, each waited for."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from shards.errors import UserError
from slurm.devcluster.hosts import environment, inside, run, wait_until
from slurm.devcluster.plan import HIGH, Plan
from slurm.devcluster.programs import program


def link_programs(plan: Plan) -> None:
    """DIR/sbin: Slurm learns from argv[0] which daemon it is, and `slurmctld-wlm` with slurmdbd would crash."""
    (plan.folder / "sbin").mkdir(exist_ok=True)
    for name in ("slurmctld", "slurmd", "slurmstepd"):
        (plan.folder / "sbin" / name).symlink_to(program(name))


def _start(plan: Plan, host: str, name: str, words: list[str]) -> None:
    log = plan.folder / "log" / f"{name}.out"
    if run(plan, inside(plan, host, words), log.name):
        raise UserError(
            f"{name} did not start, see {log}: {log.read_text(errors='replace').strip()[-300:]}"
        )


def start_munged(plan: Plan) -> None:
    """The daemon that signs credentials, with a key and a socket of its own."""
    run_folder, log = plan.folder / "run", plan.folder / "log" / "munged.log"
    options = {
        "key-file": plan.folder / "etc/munge.key",
        "socket": run_folder / "munge.sock",
        "log-file": log,
        "pid-file": run_folder / "munged.pid",
        "seed-file": run_folder / "munged.seed",
        "num-threads": 4,
    }
    words = [
        program("munged"),
        "--force",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    _start(plan, plan.head[0], "munged", words)


def start_accounting(plan: Plan) -> None:
    """mariadbd and slurmdbd, for a real sacct."""
    _make_database(plan)
    options = {
        "datadir": plan.folder / "mysql",
        "socket": plan.folder / "run/mysql.sock",
        "bind-address": "127.0.0.1",
        "pid-file": plan.folder / "run/mariadbd.pid",
        "port": plan.port("mariadbd"),
        "init-file": plan.folder / "etc/database.sql",
        "log-error": plan.folder / "log/mariadbd.log",
        "innodb-buffer-pool-size": "16M",
        "innodb-log-file-size": "8M",
        "innodb-lock-wait-timeout": 900,
        "innodb-flush-log-at-trx-commit": 0,
        "key-buffer-size": "1M",
        "aria-pagecache-buffer-size": "8M",
    }
    words = [
        *_own_tmpdir(plan),
        program("mariadbd"),
        "--no-defaults",
        *_as_root(),
        "--skip-name-resolve",
        "--performance-schema=off",
    ]
    words += [f"--{name}={value}" for name, value in options.items()]
    # it stays in the foreground: the inner & leaves it to the host's process 1
    _start(plan, plan.head[0], "mariadbd", ["sh", "-c", 'setsid "$@" &', "sh", *words])
    # its port answers before it has read its init file, which makes slurmdbd's user
    log = plan.folder / "log/mariadbd.log"
    ready = "ready for connections"
    wait_until(
        "mariadbd", lambda: log.exists() and ready in log.read_text(errors="replace"), 120, log
    )
    configuration = f"SLURM_CONF={plan.folder}/etc/slurmdbd.conf"
    _start(plan, plan.head[0], "slurmdbd", ["env", configuration, program("slurmdbd")])
    _wait_for_port(plan, "slurmdbd", plan.head[1])


def _own_tmpdir(plan: Plan) -> list[str]:
    """A mariadbd that starts clears away the temporary tables in its TMPDIR, those of other clusters in /tmp too."""
    (plan.folder / "tmp").mkdir(exist_ok=True)
    return ["env", f"TMPDIR={plan.folder}/tmp"]


def _as_root() -> list[str]:
    return ["--user=root"] if os.getuid() == 0 else [f"--user={getpass.getuser()}"]


def _make_database(plan: Plan) -> None:
    words = [
        *_own_tmpdir(plan),
        program("mariadb-install-db"),
        "--no-defaults",
        *_as_root(),
        f"--datadir={plan.folder}/mysql",
    ]
    words += ["--skip-test-db", "--auth-root-authentication-method=normal"]
    if run(plan, words, "mariadb-install.log"):
        raise UserError(
            f"the accounting database could not be made, see {plan.folder}/log/mariadb-install.log"
        )


def _wait_for_port(plan: Plan, daemon: str, address: str) -> None:
    """A client that comes too early would wait seconds before it tries again."""
    host, port = plan.head[0], plan.port(daemon)

    def answers() -> bool:
        if not plan.own_hosts:
            with socket.socket() as probe:
                return probe.connect_ex((address, port)) == 0
        line = inside(
            plan, host, ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"], network_only=True
        )
        return subprocess.run(line, capture_output=True, check=False).returncode == 0

    wait_until(daemon, answers, 120, plan.folder / "log" / f"{daemon}.log")


def start_controller(plan: Plan) -> None:
    """slurmctld, which gives out the nodes."""
    words = [f"{plan.folder}/sbin/slurmctld", "-f", f"{plan.folder}/etc/slurm.conf"]
    _start(plan, plan.head[0], "slurmctld", words)
    _wait_for_port(plan, "slurmctld", plan.head[1])


def start_node(plan: Plan, node: str, *, rebooted: bool = False) -> None:
    """slurmd of one node; `rebooted` tells the controller that what ran there is gone."""
    words = [f"{plan.folder}/sbin/slurmd", *(["-b"] if rebooted else [])]
    words += ["-f", f"{plan.folder}/etc/slurm.conf", "-d", f"{plan.folder}/sbin/slurmstepd"]
    _start(plan, node, f"slurmd-{node}", words if plan.own_hosts else [*words, "-N", node])


def idle_nodes(plan: Plan) -> list[str]:
    """Nodes that could take a job now."""
    words = inside(
        plan,
        plan.head[0],
        [f"{plan.folder}/nodebin/sinfo", "-h", "-N", "-p", HIGH, "-t", "idle", "-o", "%N"],
    )
    try:
        done = subprocess.run(
            words, env=environment(plan), capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.split()


def wait_for_nodes(plan: Plan) -> None:
    """Wait until every node is idle."""
    log = Path(plan.folder / "log" / "slurmctld.log")
    wait_until(f"{plan.nodes} idle nodes", lambda: len(idle_nodes(plan)) == plan.nodes, 120, log)
