"""The state of jobs, from squeue if it still lists them, else from sacct."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from shards.errors import UserError
from slurm.commands import try_slurm

# States in which SLURM does not start the job again.
_FAILED = (
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "BOOT_FAIL",
    "NODE_FAIL",
    "PREEMPTED",
)
FINISHED = ("COMPLETED", *_FAILED, "GONE")


@dataclass(frozen=True)
class Job:
    """A job, or one task of a job array, as squeue or sacct describes it.

    `reason` says why a pending job waits. `restarts` is None if only sacct lists the
    job.
    """

    job_id: str
    state: str
    reason: str = ""
    restarts: int | None = None
    comment: str = ""

    @property
    def finished(self) -> bool:
        """Whether the job has ended, with success or not."""
        return self.state in FINISHED

    @property
    def description(self) -> str:
        """The job's state and, if it is pending, the reason why it waits."""
        waits = self.state == "PENDING" and self.reason not in ("", "None")
        return f"{self.state.lower()} ({self.reason})" if waits else self.state.lower()


_FIELDS = "JobArrayID:|,State:|,Reason:|,RestartCnt:|,Comment:4096"


def own_jobs() -> list[Job]:
    """Return all jobs of this user that squeue lists, recently finished ones included.

    Raises UserError if squeue fails.
    """
    text = try_slurm("squeue", "-h", "--me", "--states=all", "--array", "-O", _FIELDS)
    if text is None:
        raise UserError("SLURM's controller does not respond (squeue failed): try again later")
    return [_parse_job(line) for line in text.splitlines() if line.count("|") >= 4]


def _parse_job(line: str) -> Job:
    job_id, state, reason, restarts, comment = line.split("|", 4)
    return Job(job_id, state, reason, int(restarts or 0), comment.strip())


def jobs(job_ids: Iterable[str]) -> dict[str, Job]:
    """Return the jobs with these ids, as {id: job}.

    A job that SLURM no longer lists has the state "GONE". Raises UserError if squeue
    fails.
    """
    requested = set(job_ids)
    known = {job.job_id: job for job in own_jobs() if job.job_id in requested} if requested else {}
    missing = requested - set(known)
    if missing:
        known |= _accounted_jobs(missing)
    return known | {job_id: Job(job_id, "GONE") for job_id in missing - set(known)}


def _accounted_jobs(job_ids: set[str]) -> dict[str, Job]:
    selection = [option for job_id in sorted(job_ids) for option in ("-j", job_id)]
    text = try_slurm("sacct", "-o", "JobID,State,NodeList", "--parsable2", *selection) or ""
    accounted = {}
    for line in text.splitlines()[1:]:
        job_id, state, *_ = line.split("|")
        if job_id in job_ids:
            accounted[job_id] = Job(job_id, state.split()[0])  # "CANCELLED by 1000"
    return accounted


def wait(job_ids: Iterable[str], interval: float = 5.0) -> dict[str, Job]:
    """Wait until all jobs with these ids have finished; return them as {id: job}.

    The queue is polled every `interval` seconds. Raises UserError if squeue fails.
    """
    requested = list(job_ids)
    current = jobs(requested)
    while not all(job.finished for job in current.values()):
        time.sleep(interval)
        current = jobs(requested)
    return current
