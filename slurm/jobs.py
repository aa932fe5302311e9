"""The callables that submitit runs inside a job.

They are small and keep no state, so that a requeued job runs the same call again.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import submitit

from colortrain.runs.layout import EXIT_STOPPED, lock_file
from colortrain.runs.run_lock import LockWatch
from shards.errors import UserError, run_command
from shards.locks import holder_of, lock
from slurm import rendezvous, runs
from slurm.code import CodeSnapshot

# A process that exits with EXIT_STOPPED makes the batch script, which runs outside of
# any container, requeue the job. With EXIT_NO_REQUEUE (an error of the user, or several
# starts without progress) the batch script does not requeue it.
EXIT_NO_REQUEUE = 2

_LOCK_TIMEOUT = 900.0  # seconds; collectives time out after 1800

Handler = Callable[[int, FrameType | None], Any]


@dataclass(frozen=True)
class JobContext:
    """What the processes of a job need to start: working folder, code and TMPDIR.

    `folder` is the folder from which the job was submitted, because relative paths in
    its arguments refer to it. `scratch`, if given, becomes TMPDIR.
    """

    folder: Path
    code: CodeSnapshot
    scratch: str = ""

    def prepare(self) -> None:
        """Prepare this process: check the code, set the working folder and TMPDIR.

        The working folder is the one from which the job was submitted. Exits the
        process with EXIT_NO_REQUEUE if the code was modified after submission.
        """
        try:
            self.code.check()
        except UserError as error:
            print(f"slurm: error: {error}", file=sys.stderr)
            exit_process(EXIT_NO_REQUEUE)
        os.chdir(self.folder)
        # a result left by an earlier start of this job that was killed is outdated
        submitit.JobEnvironment().paths.result_pickle.unlink(missing_ok=True)
        if self.scratch:
            folder = Path(os.path.expandvars(self.scratch))
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(folder)


@dataclass(frozen=True)
class TrainingJob:
    """One process of a training job, which runs `launch.train` with `argv`.

    The process runs as if `accelerate launch` had started it. The job ends after
    `max_restarts` consecutive starts without a new checkpoint.
    """

    argv: tuple[str, ...]
    run: Path
    context: JobContext
    max_restarts: int

    def __call__(self) -> None:
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's; the trainer replaces it
        self.context.prepare()
        rendezvous.export_variables()
        status = run_command("launch.train", self._train, self.argv)
        if status == EXIT_STOPPED:
            assert callable(requeue)
            requeue_job(requeue)
        if status:
            exit_process(status)
        atexit.register(exit_process, 0)  # runs after submitit has recorded the success

    def _train(self, argv: Sequence[str] | None) -> int | None:
        if os.environ["RANK"] == "0":
            runs.record_start(self.run, os.environ["SLURM_JOB_ID"])
            wait_for_earlier_start(self.run)
        # Imported here, because they import torch, which login nodes may lack. As that
        # takes seconds, a signal must find this start recorded.
        from launch import train
        from slurm import devices

        devices.export_variables()
        _log_resources(devices.describe_devices())
        return train.main(argv)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return the call that the requeued job runs; submitit calls this method.

        The requeued job makes the same call again. After `max_restarts` consecutive
        starts that saved no checkpoint, exits the process with EXIT_NO_REQUEUE instead,
        which ends the job.
        """
        starts = runs.starts_without_progress(self.run, os.environ["SLURM_JOB_ID"])
        if starts >= self.max_restarts:
            print(
                f"slurm: {starts} consecutive starts saved no checkpoint: "
                "increase `minutes` in the site file, or save more often",
                file=sys.stderr,
            )
            exit_process(EXIT_NO_REQUEUE)
        return submitit.helpers.DelayedSubmission(self)


def _log_resources(devices: str) -> None:
    # One CPU for all processes of a node is the symptom of an srun without
    # --cpus-per-task (SLURM 22.05 to 23.02).
    node, cpus = os.uname().nodename, len(os.sched_getaffinity(0))
    print(
        f"slurm: rank {os.environ['RANK']} on {node}, may use {cpus} CPUs, sees {devices}",
        file=sys.stderr,
    )


def wait_for_earlier_start(run: Path) -> None:
    """Wait while a process of an earlier start of the job holds the run folder's lock.

    When SLURM loses contact with a node, the processes there keep running until contact
    is restored, and two processes must not write to one run folder. If the lock's
    holder shows no sign of life for 5 minutes, the lock is taken for one that a network
    file system keeps for a lost node, and its file is deleted. The wait ends after 15
    minutes; `launch.train` then refuses the locked folder.
    """
    end, watch, reported = time.monotonic() + _LOCK_TIMEOUT, LockWatch(run), False
    while time.monotonic() < end:
        try:
            lock(lock_file(run), "").close()
            return
        except UserError:
            holder = holder_of(lock_file(run)) or "unknown process"
            if watch.is_stale():
                # If the holder is only suspended, it stops before it saves anything.
                lock_file(run).unlink(missing_ok=True)
                _log(f"no sign of life of {holder}: its lock on {run} was deleted")
                return
            if not reported:
                _log(
                    f"a process of an earlier start still holds {run} ({holder}): "
                    "waiting for it to end"
                )
            reported = True
            time.sleep(1)


def _log(text: str) -> None:
    print(f"slurm: {text}", file=sys.stderr)


@dataclass(frozen=True)
class ShardsJob:
    """A job process that runs `colortrain shards` once for each element of `calls`.

    Each element consists of the arguments of one command. Exit status 1 of a command
    (some images were left out) does not fail the job.
    """

    calls: tuple[tuple[str, ...], ...]
    context: JobContext

    def __call__(self) -> None:
        self.context.prepare()
        from shards.__main__ import main

        for argv in self.calls:
            status = run_command("shards", main, argv)
            if status > 1:
                exit_process(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return the call that the requeued job runs; submitit calls this method.

        The requeued job makes the same call again, which resumes the build.
        """
        return submitit.helpers.DelayedSubmission(self)


def requeue_job(requeue: Handler) -> NoReturn:
    """Requeue the job if this process is rank 0, then end the process.

    `requeue` is submitit's signal handler, which requeues the job. Call this function
    after everything is saved. The job is not requeued if SLURM is already ending or
    requeueing it: a job that was cancelled must not start again.
    """
    if os.environ["RANK"] != "0":
        exit_process(0)
    try:
        if _is_running():
            # the job's signals may reach our children too, and would end the requeue
            # command
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
                signal.signal(number, signal.SIG_IGN)
            requeue(signal.SIGUSR2, None)
    except SystemExit:
        pass  # raised by submitit once the job is requeued
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        print(
            f"slurm: cannot requeue the job from here ({error}); the batch script will try",
            file=sys.stderr,
        )
        exit_process(EXIT_STOPPED)
    exit_process(0)


def _is_running() -> bool:
    """Return whether SLURM reports the state RUNNING for the job of this process.

    The state is COMPLETING if the job was cancelled or requeued and is about to end.
    """
    # Not SLURM_JOB_ID: squeue takes that of an array's last task for the whole array.
    job_id = submitit.JobEnvironment().job_id
    command = ["squeue", "-h", "-j", job_id, "-o", "%T"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=True
    )
    return done.stdout.strip() == "RUNNING"


def exit_process(status: int) -> NoReturn:
    """End this process at once, without the interpreter's shutdown.

    gloo's threads occasionally abort during shutdown, after correct results.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
