"""When a job is requeued: one table for the batch scripts and for the processes."""

from __future__ import annotations

# One letter per start of a job, then `max_restarts`, then whether each start is
# requeued. s: SLURM signals the job to stop; f: a process fails; a capital: a step was
# saved.
CASES = [
    ("sss", 3, "yyn"),  # stopped before the first save: repeated, but not forever
    ("SSSS", 1, "yyyy"),
    ("sSss", 2, "yyyn"),  # a save restarts the count
    ("fsf", 3, "yyn"),
    ("FFf", 1, "yyn"),
]
