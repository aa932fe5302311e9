"""What SLURM says of jobs: squeue of those it has, sacct of those it has forgotten."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from shards.errors import UserError

# A job in one of these does not come back by itself.
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
ENDED = ("COMPLETED", *_FAILED, "GONE")


@dataclass(frozen=True)
class Job:
    """One job, or one element of an array: `restarts` is None where only sacct knows it, `reason` that it waits."""

    number: str
    state: str
    reason: str = ""
    restarts: int | None = None
    comment: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    @property
    def shown(self) -> str:
        """State, and why it waits."""
        waits = self.state == "PENDING" and self.reason not in ("", "None")
        return f"{self.state.lower()} ({self.reason})" if waits else self.state.lower()


_FIELDS = "JobArrayID:|,State:|,Reason:|,RestartCnt:|,Comment:4096"


def _ask(*words: str) -> str | None:
    """What a command prints; None if it fails, as squeue does for a number it does not know."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise UserError(f"no SLURM here ({words[0]} not found): run this on a login node") from None
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def mine() -> list[Job]:
    """All jobs of this user that squeue knows, those that ended a few minutes ago too."""
    text = _ask("squeue", "-h", "--me", "--states=all", "--array", "-O", _FIELDS)
    if text is None:
        raise UserError("SLURM's controller does not answer (squeue): try again later")
    return [_job(line) for line in text.splitlines() if line.count("|") >= 4]


def _job(line: str) -> Job:
    number, state, reason, restarts, comment = line.split("|", 4)
    return Job(number, state, reason, int(restarts or 0), comment.strip())


def jobs(numbers: Iterable[str]) -> dict[str, Job]:
    """Jobs by number; "GONE" where SLURM has forgotten one."""
    wanted = set(numbers)
    known = {job.number: job for job in mine() if job.number in wanted} if wanted else {}
    missing = wanted - set(known)
    if missing:
        known |= _accounted(missing)
    return known | {number: Job(number, "GONE") for number in missing - set(known)}


def _accounted(numbers: set[str]) -> dict[str, Job]:
    words = [word for number in sorted(numbers) for word in ("-j", number)]
    text = _ask("sacct", "-o", "JobID,State,NodeList", "--parsable2", *words) or ""
    found = {}
    for line in text.splitlines()[1:]:
        number, state, *_ = line.split("|")
        if number in numbers:
            found[number] = Job(number, state.split()[0])  # "CANCELLED by 1000"
    return found


def wait(numbers: Iterable[str], every: float = 5.0) -> dict[str, Job]:
    """Wait until all of them are over; what they ended as."""
    wanted = list(numbers)
    found = jobs(wanted)
    while not all(job.ended for job in found.values()):
        time.sleep(every)
        found = jobs(wanted)
    return found
