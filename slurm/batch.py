"""A site's facts as submitit's parameters, and through them as an sbatch script."""

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
from slurm.code import Code

_PASSED = ("partition", "account", "qos", "constraint")
_OUTER = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")  # of a job that submits a job
_FOR_EVER = 1_000_000  # of submitit's requeues after time-outs: whether a start was fruitless is judged by its steps


def parameters(
    cluster: Cluster, code: Code, *, name: str, comment: str, again: str, runs: Sequence[Path] = ()
) -> dict[str, Any]:
    """What submitit is told; `again` is the command with which a person goes on, if SLURM refuses a requeue.

    `runs` are the run folders, one for each element of an array: a failed start that saved a step there is tried again.
    """
    found: dict[str, Any] = {
        field: getattr(cluster, field) for field in _PASSED if getattr(cluster, field)
    }
    found |= {
        "job_name": name,
        "comment": comment,
        "time": cluster.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks,
        "cpus_per_task": cluster.cpus,
        "signal_delay_s": cluster.warning,
        "setup": _setup(cluster, code, runs),
        "teardown": _teardown(cluster, again),
        "srun_args": _srun_words(cluster, code),
        "additional_parameters": _options(cluster),
    }
    if cluster.gpus:
        found["gpus_per_node"] = cluster.gpus
    if cluster.memory:
        found["mem"] = f"{round(cluster.memory * 1024)}M"
    return found


def _setup(cluster: Cluster, code: Code, runs: Sequence[Path]) -> list[str]:
    notes = f"{code.folder.parent}/starts-"
    return [
        *cluster.setup,
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",  # srun of SLURM 22.05 and 23.02 does not look at sbatch's
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}",
        f"export PYTHONPATH={shlex.quote(str(code.folder))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"runs=({shlex.join(map(str, runs))})",
        "run=${runs[${SLURM_ARRAY_TASK_ID:-0}]}",
        f'notes={shlex.quote(notes)}"$SLURM_JOB_ID"',
        f". {shlex.quote(str(code.folder / 'slurm' / 'requeue.sh'))}",
        'note_start "$run" "$notes"',
    ]


def _teardown(cluster: Cluster, again: str) -> list[str]:
    """Send the job back to the queue, if that is what it needs: the rules are in requeue.sh."""
    return [
        "status=$?",
        f'requeue "$status" "$run" "$notes" {cluster.max_restarts} {shlex.quote(again)}',
    ]


def _srun_words(cluster: Cluster, code: Code) -> list[str]:
    """A dead process ends the job, or the others would wait for it; --chdir keeps `python -m` off other code."""
    words = ["--kill-on-bad-exit=1", f"--chdir={code.folder}"]
    if cluster.container:
        mounts = ",".join([*cluster.container.mounts])
        words.append(f"--container-image={cluster.container.image}")
        words += [f"--container-mounts={mounts}"] if mounts else []
        words += [f"--container-workdir={code.folder}", *cluster.container.options]
    return words


def _options(cluster: Cluster) -> dict[str, Any]:
    pairs = [option.removeprefix("--").partition("=") for option in cluster.options]
    found: dict[str, Any] = {name: value if equals else True for name, equals, value in pairs}
    return found if "no-requeue" in found else {"requeue": True, **found}


def _python(cluster: Cluster) -> str:
    """The interpreter, deaf to what would end it before it has handlers; SLURM itself requeues what it then evicts."""
    python = cluster.python or shlex.quote(sys.executable)
    return f"""sh -c 'trap "" USR2 TERM; exec "$0" "$@"' {python}"""


def text(cluster: Cluster, folder: Path, told: dict[str, Any], count: int | None = None) -> str:
    """The sbatch script that `submit` would send; `count` elements of an array."""
    limits: dict[str, Any] = (
        {} if count is None else {"map_count": count, "array_parallelism": cluster.parallel}
    )
    command = f"{_python(cluster)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    script: str = _make_sbatch_string(command, folder, **told, **limits)
    return script


def submit(
    cluster: Cluster, folder: Path, told: dict[str, Any], calls: Sequence[Callable[[], Any]]
) -> list[str]:
    """Send one job, or an array of several calls; the numbers. Raises `UserError` with what sbatch says."""
    with _outside_of_any_job():
        try:
            executor = submitit.SlurmExecutor(
                folder, max_num_timeout=_FOR_EVER, python=_python(cluster)
            )
            executor.update_parameters(**told)
            if len(calls) == 1:
                return [str(executor.submit(calls[0]).job_id)]
            executor.update_parameters(array_parallelism=cluster.parallel)
            with executor.batch():
                jobs = [executor.submit(call) for call in calls]
        except RuntimeError as error:  # submitit: no srun here
            raise UserError(_first_lines(error)) from None
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"sbatch refused the job: {_first_lines(error.stderr or error.output)}"
            ) from None
    return [str(job.job_id) for job in jobs]


def _first_lines(error: object) -> str:
    words = error.decode() if isinstance(error, bytes) else str(error)
    return " ".join(line.strip() for line in words.splitlines() if line.strip())[:500]


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """An outer job's variables would be taken for options of the new one."""
    outer = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_OUTER)}
    kept = {
        name: outer[name] for name in outer if name in ("SLURM_CONF",)
    }  # which cluster, not which job
    os.environ.update(kept)
    try:
        yield
    finally:
        os.environ.update(outer)
