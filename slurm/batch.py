"""Submit jobs through submitit, as a site file requests.

A site file (see `slurm.cluster`) describes a cluster and what each job requests.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import _make_sbatch_string

from shards.errors import UserError
from slurm.cluster import Cluster
from slurm.code import CodeSnapshot

# Fields of Cluster that are parameters of submitit under the same name.
_PASSED_ON = ("partition", "account", "qos", "constraint")
_JOB_PREFIXES = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
# Disables submitit's limit on requeues; requeue.sh and `TrainingJob` have their own.
_UNLIMITED = 1_000_000


def job_parameters(
    cluster: Cluster,
    code: CodeSnapshot,
    *,
    name: str,
    comment: str,
    resume_command: str,
    runs: Sequence[Path] = (),
) -> dict[str, Any]:
    """Return the parameters with which submitit submits a job to the cluster.

    `runs` are the run folders, one per array task. A job that failed is requeued until
    `max_restarts` (a field of `cluster`) consecutive starts have saved no checkpoint in
    its run folder. If SLURM refuses to requeue, the job prints `resume_command` for the
    user.
    """
    parameters: dict[str, Any] = {
        field: getattr(cluster, field) for field in _PASSED_ON if getattr(cluster, field)
    }
    parameters |= {
        "job_name": name,
        "comment": comment,
        "time": cluster.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "signal_delay_s": cluster.warning,
        "setup": _setup_lines(cluster, code, runs),
        "teardown": _requeue_lines(cluster, resume_command),
        "srun_args": _srun_options(cluster, code),
        "additional_parameters": _sbatch_options(cluster),
    }
    if cluster.cpus:
        parameters["cpus_per_task"] = cluster.cpus
    # sbatch uses the last of two options, which would be this one, without the type
    if cluster.gpus and "gpus-per-node" not in parameters["additional_parameters"]:
        parameters["gpus_per_node"] = cluster.gpus
    if cluster.memory:
        parameters["mem"] = f"{round(cluster.memory * 1024)}M"
    return parameters


def resume_command(command: str, argv: Sequence[str]) -> str:
    """Return the shell command that runs `colortrain COMMAND ARGV` again.

    It runs in the present working folder, because relative paths in `argv` refer to it,
    and without --dry-run.
    """
    kept = [argument for argument in argv if argument != "--dry-run"]
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(['colortrain', command, *kept])}"


def _setup_lines(cluster: Cluster, code: CodeSnapshot, runs: Sequence[Path]) -> list[str]:
    starts = f"{code.folder.parent}/starts-"
    return [
        *code.check_lines(),
        *cluster.setup,
        # srun of SLURM 22.05 and 23.02 ignores the --cpus-per-task of sbatch
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}",
        f"export PYTHONPATH={shlex.quote(str(code.folder))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"runs=({shlex.join(map(str, runs))})",
        "run=${runs[${SLURM_ARRAY_TASK_ID:-0}]}",
        f'starts={shlex.quote(starts)}"$SLURM_JOB_ID"',
        f". {shlex.quote(str(code.folder / 'slurm' / 'requeue.sh'))}",
        'record_start "$run" "$starts"',
    ]


def _requeue_lines(cluster: Cluster, resume_command: str) -> list[str]:
    """Return the last lines of the batch script, which requeue the job if necessary.

    The shell function `requeue` of requeue.sh decides that.
    """
    return [
        "status=$?",
        f'requeue "$status" "$run" "$starts" {cluster.max_restarts} {shlex.quote(resume_command)}',
    ]


def _srun_options(cluster: Cluster, code: CodeSnapshot) -> list[str]:
    """Return the options of the srun that starts the processes of a job.

    With --kill-on-bad-exit, a failed process ends the job, because the others would
    wait for it. --chdir makes `python -m` import the code snapshot.
    """
    options = ["--kill-on-bad-exit=1", f"--chdir={code.folder}"]
    if cluster.container:
        mounts = ",".join(cluster.container.mounts)
        options.append(f"--container-image={cluster.container.image}")
        options += [f"--container-mounts={mounts}"] if mounts else []
        options += [f"--container-workdir={code.folder}", *cluster.container.options]
    return options


def _sbatch_options(cluster: Cluster) -> dict[str, Any]:
    pairs = [option.removeprefix("--").partition("=") for option in cluster.options]
    options: dict[str, Any] = {name: value if equals else True for name, equals, value in pairs}
    return options if "no-requeue" in options else {"requeue": True, **options}


def _python_command(cluster: Cluster) -> str:
    """Return the shell command that starts the Python interpreter in a job.

    The interpreter ignores the signals USR2 and TERM until the trainer installs its
    handlers. If SLURM preempts the job before that, SLURM itself requeues it.
    """
    python = cluster.python or shlex.quote(sys.executable)
    return f"""sh -c 'trap "" USR2 TERM; exec "$0" "$@"' {python}"""


def script_text(
    cluster: Cluster, folder: Path, parameters: dict[str, Any], array_size: int | None = None
) -> str:
    """Return the text of the sbatch script that `submit` would submit.

    With `array_size`, it is the script of a job array with this number of tasks.
    """
    array: dict[str, Any] = (
        {}
        if array_size is None
        else {"map_count": array_size, "array_parallelism": cluster.parallel}
    )
    command = f"{_python_command(cluster)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    script: str = _make_sbatch_string(command, folder, **parameters, **array)
    return script


def submit(
    cluster: Cluster, folder: Path, parameters: dict[str, Any], calls: Sequence[Callable[[], Any]]
) -> list[str]:
    """Submit a job that runs the functions `calls`, and return the job ids.

    Several functions become a job array with one task and one job id per function.
    Raises UserError with the message of sbatch if sbatch refuses the job.
    """
    with _outside_of_any_job():
        try:
            executor = submitit.SlurmExecutor(
                folder, max_num_timeout=_UNLIMITED, python=_python_command(cluster)
            )
            executor.update_parameters(**parameters)
            if len(calls) == 1:
                return [str(executor.submit(calls[0]).job_id)]
            executor.update_parameters(array_parallelism=cluster.parallel)
            with executor.batch():
                jobs = [executor.submit(call) for call in calls]
        except UnicodeEncodeError:  # submitit writes the script in the locale's encoding
            raise UserError(
                "the job's script has characters that this locale cannot write: "
                "set LC_ALL=C.UTF-8, and give paths that are UTF-8"
            ) from None
        except RuntimeError as error:  # raised by submitit where there is no srun
            raise UserError(_on_one_line(error)) from None
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"sbatch refused the job: {_on_one_line(error.stderr or error.output)}"
            ) from None
    return [str(job.job_id) for job in jobs]


def _on_one_line(error: object) -> str:
    text = error.decode(errors="replace") if isinstance(error, bytes) else str(error)
    return " ".join(line.strip() for line in text.splitlines() if line.strip())[:500]


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hide the environment variables of an outer SLURM job during the `with` block.

    sbatch would read them as options.
    """
    outer = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_JOB_PREFIXES)
    }
    if "SLURM_CONF" in outer:  # names the cluster, not a job
        os.environ["SLURM_CONF"] = outer["SLURM_CONF"]
    try:
        yield
    finally:
        os.environ.update(outer)
