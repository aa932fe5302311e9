"""Write the configuration files and client commands of a development cluster."""

from __future__ import annotations

import getpass
import secrets
import shlex
from pathlib import Path

from slurm.devcluster.plan import HIGH, LOW, Plan, loopback_address
from slurm.devcluster.programs import CLIENTS, find

# SLURM needs one character device per GPU and only calls stat() on it. With Count= and
# without File= it reports no GPU; with a regular file CUDA_VISIBLE_DEVICES stays empty.
_DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
)
MAX_GPUS = len(_DEVICES)
# set in the environment of all processes of a cluster, by which `down` finds them
MARK = "COLORTRAIN_DEVCLUSTER"


def slurm_conf(plan: Plan) -> str:
    """Return the text of slurm.conf, which SLURM's daemons and commands read."""
    name, address = plan.head
    return f"""\
ClusterName=devcluster
SlurmctldHost={name}({address})
SlurmctldPort={plan.port("slurmctld")}
SlurmUser={getpass.getuser()}
SlurmdUser={getpass.getuser()}
{_listening(plan)}

# One munged for all hosts. A requeued job may start only after its old credential has expired;
# 5 s is the minimum.
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={plan.folder}/run/munge.sock,cred_expire=5

StateSaveLocation={plan.folder}/state
SlurmdSpoolDir={plan.folder}/spool/%n
SlurmctldPidFile={plan.folder}/run/slurmctld.pid
SlurmdPidFile={plan.folder}/run/slurmd-%n.pid
SlurmctldLogFile={plan.folder}/log/slurmctld.log
SlurmdLogFile={plan.folder}/log/slurmd-%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
MailProg=/bin/true

# No systemd and no cgroups; config_overrides takes the NodeName lines instead of the hardware.
# Limits are not propagated: raising them requires a capability.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/{"linux" if plan.accounting else "none"}
JobAcctGatherFrequency=task=0
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
SwitchType=switch/none
MpiDefault=none

# The scheduler runs every second; on large clusters every 30 to 60 s.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
GresTypes=gpu

PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=0
JobRequeue=1
# With preempt_send_user_signal the signal of sbatch --signal is sent before an eviction;
# without it only TERM.
{"SlurmctldParameters=preempt_send_user_signal" if plan.user_signal else ""}

# Failures are noticed within seconds; on large clusters within minutes. With TCPTimeout=2, the
# default, a node without power is down after 30 s instead of 20.
TCPTimeout=1
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
CompleteWait=0
InactiveLimit=0
OverTimeLimit=0
MinJobAge=3600
ReturnToService=2

{_accounting(plan)}
{_nodes(plan)}
PartitionName=DEFAULT Nodes=ALL DefaultTime=10 MaxTime=INFINITE State=UP
PartitionName={LOW} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={plan.grace}
PartitionName={HIGH} PriorityTier=10 PreemptMode=OFF
"""


def _listening(plan: Plan) -> str:
    """Return the line of slurm.conf that makes daemons listen on one address only.

    This is the address of the host name, instead of all addresses (0.0.0.0). Returns ""
    where that is not necessary.
    """
    if plan.uses_namespaces or not loopback_address().startswith("127."):
        return ""
    return "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"


def _accounting(plan: Plan) -> str:
    if not plan.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={plan.head[1]}
AccountingStoragePort={plan.port("slurmdbd")}
AccountingStorageTRES=gres/gpu
# The connection to slurmdbd ignores AuthInfo.
AccountingStoragePass={plan.folder}/run/munge.sock"""


def _nodes(plan: Plan) -> str:
    gres = f"Gres=gpu:{plan.gpus}" if plan.gpus else ""
    size = f"CPUs={plan.cpus} RealMemory=4000 {gres} State=UNKNOWN"
    last = 10 + plan.nodes
    if plan.uses_namespaces:
        return f"NodeName=node[1-{plan.nodes}] NodeAddr=10.77.0.[11-{last}] Port=6818 {size}"
    ports = f"Port=[{plan.base_port + 11}-{plan.base_port + last}]"
    address = f"NodeAddr={loopback_address()} NodeHostname={plan.head[0]}"
    return f"NodeName=127.0.0.[11-{last}] {address} {ports} {size}"


def slurmdbd_conf(plan: Plan, password: str) -> str:
    """Return the text of slurmdbd.conf, the configuration of the accounting daemon.

    The file must be readable only by its owner, because it contains `password`.
    """
    return f"""\
AuthType=auth/munge
AuthInfo=socket={plan.folder}/run/munge.sock,cred_expire=5
DbdHost=localhost
DbdAddr={plan.head[1]}
DbdPort={plan.port("slurmdbd")}
{_listening(plan)}
SlurmUser={getpass.getuser()}
DebugLevel=verbose
LogFile={plan.folder}/log/slurmdbd.log
PidFile={plan.folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={plan.port("mariadbd")}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


def database_sql(password: str) -> str:
    """Return the SQL that mariadbd executes when it starts.

    It creates the accounting database and its user.
    """
    return f"""\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';
"""


def hosts(plan: Plan) -> str:
    """Return the text of /etc/hosts, which is the same on all hosts of the cluster."""
    lines = ["127.0.0.1 localhost", f"{plan.head[1]} {plan.head[0]}"]
    return "\n".join(
        [*lines, *(f"{plan.node_address(name)} {name}" for name in plan.node_names), ""]
    )


# A `sacct` for clusters without accounting, sufficient for submitit and `slurm.queue`.
# It queries slurmctld through squeue, which lists finished jobs for MinJobAge seconds,
# without their steps.
_SACCT = r"""#!/bin/bash
ids=
while [ $# -gt 0 ]; do
    case $1 in
        -j|--jobs) ids=$ids,$2; shift ;;
        --jobs=*) ids=$ids,${1#*=} ;;
        -o|--format) shift ;;
    esac; shift
done
echo 'JobID|State|NodeList'
"$(dirname "$0")/squeue" --noheader --states=all ${ids:+--jobs="${ids#,}"} \
    --format='%i|%T|%N' 2>/dev/null
exit 0
"""


def node_wrapper(plan: Plan, name: str) -> str:
    """Return the shell script that runs a SLURM command, such as sbatch, on a node.

    The script of scontrol ignores signals, for this reason: real clusters signal only
    the tasks of a job step, but a development cluster (proctrack/linuxproc) also
    signals the child processes of the tasks. When a job receives TERM, it runs
    `scontrol requeue`, and the same TERM would end scontrol.
    """
    if name == "sacct" and not plan.accounting:
        return _SACCT
    ignore = 'trap "" TERM USR1 USR2 CONT\n' if name == "scontrol" else ""
    exports = f"export SLURM_CONF={plan.folder}/etc/slurm.conf {MARK}={plan.folder}"
    return f'#!/bin/sh\n{exports}\n{ignore}exec {find(name)} "$@"\n'


def outside_wrapper(plan: Plan, name: str, head: int) -> str:
    """Return the shell script that runs a SLURM command from outside the cluster.

    The script enters the namespaces of the head node, whose init process has the id
    `head`.
    """
    inner = f"{plan.folder}/nodebin/{name}"
    user = "--user --preserve-credentials " if plan.user_namespace else ""
    enter = f"nsenter -t {head} {user}--net --uts --mount --"
    return f"""#!/bin/sh\nexec {enter} sh -c 'cd "$0" && exec {inner} "$@"' "$PWD" "$@"\n"""


def shell_lines(plan: Plan) -> str:
    """Return the text of the file `env` in the cluster's folder.

    A user's shell reads it with `. env`. It unsets the variables of an outer SLURM job
    and puts the cluster's commands (sbatch, squeue, ...) first in PATH.
    """
    outer_variables = (
        r"sed -n 's/^\(\(SLURM\|SLURMD\|SBATCH\|SRUN\|SALLOC\|SACCT\|SQUEUE\)_[A-Za-z_]*\)=.*/\1/p'"
    )
    return f"""\
unset $(env | {outer_variables})
export SLURM_CONF={plan.folder}/etc/slurm.conf
export PATH={shlex.quote(str(plan.folder))}/bin:$PATH
"""


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text, encoding="utf-8")


def write_files(plan: Plan) -> None:
    """Write all files of a cluster that can be written before its hosts are started."""
    folder, password = plan.folder, secrets.token_hex(12)
    _write(folder / "etc/slurm.conf", slurm_conf(plan))
    devices = f"Name=gpu File={','.join(_DEVICES[: plan.gpus])}" if plan.gpus else ""
    _write(folder / "etc/gres.conf", f"AutoDetect=off\n{devices}\n")
    _write(folder / "etc/slurmdbd.conf", slurmdbd_conf(plan, password), 0o600)
    _write(folder / "etc/database.sql", database_sql(password), 0o600)
    _write(folder / "env", shell_lines(plan))
    if plan.uses_namespaces:
        _write(folder / "etc/hosts", hosts(plan))
    (folder / "etc/munge.key").touch(0o600)
    (folder / "etc/munge.key").write_bytes(secrets.token_bytes(1024))
    for name in ("run", "log", "state", "bin", *(f"spool/{node}" for node in plan.node_names)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in CLIENTS:
        _write(folder / "nodebin" / name, node_wrapper(plan, name), 0o755)
        if not plan.uses_namespaces:
            _write(folder / "bin" / name, node_wrapper(plan, name), 0o755)


def write_outside_wrappers(plan: Plan, head: int) -> None:
    """Write the scripts that run SLURM commands from outside the cluster.

    `head` is the process id of the init process of the head node.
    """
    for name in CLIENTS:
        _write(plan.folder / "bin" / name, outside_wrapper(plan, name, head), 0o755)
