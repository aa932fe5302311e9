"""What runs inside a job: small callables without state, so that a requeued job is the same call again."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import submitit

from colortrain.runs.layout import EXIT_STOPPED, lock_file
from shards.errors import UserError, run_command
from shards.files import lock
from slurm import rendezvous, runs
from slurm.code import Code

# A process that exits with EXIT_STOPPED asks the batch script, which runs outside of any container, to requeue the job.
EXIT_NO_REQUEUE = (
    2  # a user's error, or starts without progress: the batch script does not requeue the job
)

_PATIENCE = 900.0  # seconds; collectives wait for 1800

Handler = Callable[[int, FrameType | None], Any]


@dataclass(frozen=True)
class Place:
    """Where a job runs: the folder it was submitted from (paths in its words start there), its code, its TMPDIR."""

    folder: Path
    code: Code
    scratch: str = ""

    def prepare(self) -> None:
        """Check that this is the code that was submitted, and go where the words were written."""
        try:
            self.code.check()
        except UserError as error:
            print(f"slurm: error: {error}", file=sys.stderr)
            leave(EXIT_NO_REQUEUE)
        os.chdir(self.folder)
        # what a killed start of this job said of itself is not true any more
        submitit.JobEnvironment().paths.result_pickle.unlink(missing_ok=True)
        if self.scratch:
            folder = Path(os.path.expandvars(self.scratch))
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(folder)


@dataclass(frozen=True)
class Training:
    """One process of a training job: `launch.train` with `words`, as `accelerate launch` would have started it.

    `max_restarts` starts in a row that are told to leave before they have saved a step end the job.
    """

    words: tuple[str, ...]
    run: Path
    place: Place
    max_restarts: int

    def __call__(self) -> None:
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's; the trainer puts its own in front
        self.place.prepare()
        rendezvous.export()
        # one CPU for all processes of a node is what srun's forgotten --cpus-per-task looks like (SLURM 22.05 to 23.02)
        where, cpus = os.uname().nodename, len(os.sched_getaffinity(0))
        print(f"slurm: rank {os.environ['RANK']} on {where}, may use {cpus} CPUs", file=sys.stderr)
        if os.environ["RANK"] == "0":
            runs.note_start(self.run, os.environ["SLURM_JOB_ID"])
            outlive_earlier_start(self.run)
        from launch import train  # imports torch, which login nodes may lack

        status = run_command("launch.train", train.main, self.words)
        if status == EXIT_STOPPED:
            assert callable(requeue)
            give_back(requeue)
        if status:
            leave(status)
        atexit.register(leave, 0)  # once submitit has noted the success

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same call again; does not come back, and ends the job, once several starts in a row saved no step."""
        fruitless = runs.fruitless_starts(self.run, os.environ["SLURM_JOB_ID"])
        if fruitless >= self.max_restarts:
            print(
                f"slurm: {fruitless} starts in a row saved no step: give the job more minutes",
                file=sys.stderr,
            )
            leave(EXIT_NO_REQUEUE)
        return submitit.helpers.DelayedSubmission(self)


def outlive_earlier_start(run: Path) -> None:
    """Wait while an earlier start still holds the run folder; without end it is `launch.train` that refuses.

    On a node that SLURM has lost sight of, processes live until it sees them again, and two must not write here.
    """
    end, told = time.monotonic() + _PATIENCE, False
    while time.monotonic() < end:
        try:
            lock(lock_file(run), "").close()
            return
        except UserError:
            if not told:
                print(
                    f"slurm: a process of an earlier start still holds {run}: waiting for its end",
                    file=sys.stderr,
                )
            told = True
            time.sleep(1)


@dataclass(frozen=True)
class Shards:
    """`python -m shards` with each of `calls` in turn. Images left out, its exit status 1, are no failure here."""

    calls: tuple[tuple[str, ...], ...]
    place: Place

    def __call__(self) -> None:
        self.place.prepare()
        from shards.__main__ import main

        for words in self.calls:
            status = run_command("shards", main, words)
            if status > 1:
                leave(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same call again: a build goes on where it was stopped."""
        return submitit.helpers.DelayedSubmission(self)


def give_back(requeue: Handler) -> NoReturn:
    """All is saved: let rank 0 ask for a requeue, unless SLURM is ending or requeueing the job anyway, and leave.

    A job that was cancelled, or ran out of time, must not come back to life.
    """
    if os.environ["RANK"] != "0":
        leave(0)
    try:
        if _is_running():
            # the job's signals may reach our children too, and would end the command that saves it
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
                signal.signal(number, signal.SIG_IGN)
            requeue(signal.SIGUSR2, None)
    except SystemExit:
        pass  # submitit's way out, once the job is requeued
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        print(
            f"slurm: no requeue from in here ({error}); the batch script tries it", file=sys.stderr
        )
        leave(EXIT_STOPPED)
    leave(0)


def _is_running() -> bool:
    """Whether SLURM means this job to go on; a cancelled or requeued one is COMPLETING by now."""
    number = (
        submitit.JobEnvironment().job_id
    )  # SLURM_JOB_ID of an array's last element means the whole array to squeue
    words = ["squeue", "-h", "-j", number, "-o", "%T"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip() == "RUNNING"


def leave(status: int) -> NoReturn:
    """End this process at once: threads of gloo abort an ordinary exit now and then, after right results."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
