"""A real SLURM for tests, and training runs on it.

The networks are small, the images have 32 px, and four processes run on two nodes.
Every wait has a limit.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from colortrain.runs.layout import checkpoint_folder
from slurm import submit
from tests.support.processes import ROOT, environment

STEPS = 60
SETTINGS = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
    "log_every=1",
    "checkpoint_every=20",
    "evaluate_every=30",
    "keep_checkpoints=9",
    "ema.half_life=20",
]
SITE = "partition = 'low'\nnodes = 2\nprocesses = 2\nminutes = 30\nwarning = 30\n"
# for tests in which four processes would show no more than two
TWO_PROCESSES = SITE.replace("processes = 2", "processes = 1")


def wait_until(
    what: str, condition: Callable[[], bool], seconds: float = 120, interval: float = 0.05
) -> None:
    """Wait until `condition()` is true and fail after `seconds`.

    A job that dies early must not make the tests hang.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for {what}"
        time.sleep(interval)


def training_argv(shards: Path, *changes: str, steps: int = STEPS) -> list[str]:
    """Return arguments of `launch.train`, without --run."""
    settings = [*SETTINGS, f"images={4 * steps}", *changes]
    options = [argument for change in settings for argument in ("--set", change)]
    return ["--recipe", "nampouri_unet", "--shards", str(shards), "--tracker", "none", *options]


def journal(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl, of one kind or of all."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in entries if kind in (None, entry["kind"])]


def steps_of(run: Path, kind: str) -> list[int]:
    """Return the steps of all lines of a kind."""
    return [entry["step"] for entry in journal(run, kind)]


def weights(run: Path) -> dict[str, bytes]:
    """Return the tensor files of the last checkpoint: networks, optimizers, average."""
    files = {
        path.name: path.read_bytes() for path in checkpoint_folder(run, STEPS).glob("*.safetensors")
    }
    assert len(files) == 5
    return files


@dataclass(frozen=True)
class DevCluster:
    """A development cluster, and what a user does on its login node."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of a shell that has sourced DIR/env."""
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**environment(), "SLURM_CONF": f"{self.folder}/etc/slurm.conf", "PATH": path}

    def output(self, *command: str, cwd: Path = ROOT) -> str:
        """Return the output of a command, which must succeed."""
        done = self.run(command, cwd)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def run(self, command: Sequence[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command, for eight minutes at most."""
        return subprocess.run(
            command,
            env=self.environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )

    def run_module(
        self, module: str, *arguments: object, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the project's commands."""
        return self.run([sys.executable, "-m", module, *map(str, arguments)], cwd)

    def submit(self, run: Path, argv: Sequence[str], site: str = SITE) -> str:
        """Submit a training job and return its id."""
        file = run.with_suffix(".toml")
        file.write_text(site)
        with redirect_stdout(io.StringIO()) as output, self.on_login_node():
            assert submit.main(["--cluster", str(file), "--run", str(run), "--", *argv]) == 0
        return output.getvalue().split()[1].rstrip(":")

    @contextmanager
    def on_login_node(self) -> Iterator[None]:
        """Put this process into the cluster's environment.

        A command called here need not import torch again.
        """
        before, inside = dict(os.environ), self.environment()
        os.environ.clear()
        os.environ.update(inside)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def state(self, job_id: str) -> str:
        """Return RUNNING, PENDING, COMPLETED, ..."""
        return self.output("squeue", "-h", "--states=all", "-j", job_id, "-o", "%T")

    def restarts(self, job_id: str) -> int:
        """Return how often SLURM has requeued a job."""
        return int(self.output("squeue", "-h", "--states=all", "-j", job_id, "-O", "RestartCnt"))

    def wait_for_step(self, run: Path, step: int) -> None:
        """Wait until a run has completed a step."""
        wait_until(
            f"step {step} of {run}", lambda: max(steps_of(run, "train"), default=0) >= step, 180
        )

    def wait_for_end(self, job_id: str, run: Path) -> str:
        """Wait until a job has ended and return its state. Prints the logs of a
        failure.
        """
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_until(f"the end of job {job_id}", lambda: self.state(job_id) in ended, 240)
        state = self.state(job_id)
        if state == "FAILED":
            logs = sorted((run / "slurm").glob("*_log.err"))
            print("".join(path.read_text()[-2000:] for path in logs))
        return state

    def ranks(self, run: Path) -> dict[int, psutil.Process]:
        """Return the processes that train a run, by rank."""
        processes = {}
        for process in psutil.process_iter(["name", "cmdline", "environ"]):
            # a process that has just ended has no environment
            rank = (process.info["environ"] or {}).get("SLURM_PROCID")
            if (
                rank
                and str(run / "slurm") in (process.info["cmdline"] or [])
                and process.info["name"].startswith("python")
            ):
                processes[int(rank)] = process
        return processes

    @contextmanager
    def suspended(self, run: Path) -> Iterator[list[psutil.Process]]:
        """Suspend the processes that train a run inside the block.

        On a fast machine the run would otherwise end before SLURM acts.
        """
        processes = list(self.ranks(run).values())
        for process in processes:
            process.suspend()
        wait_until(
            "all processes to be suspended",
            lambda: all(process.status() == psutil.STATUS_STOPPED for process in processes),
            30,
        )
        try:
            yield processes
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def inject_event(self, event: str, node: str) -> None:
        """Apply an event of `colortrain devcluster`, or set a node down as its
        administrator.
        """
        if event == "state=down":
            self.output("scontrol", "update", f"nodename={node}", event, "reason=test")
            return
        done = self.run_module("slurm.devcluster", event, node, "--dir", self.folder)
        assert done.returncode == 0, done.stderr

    def clear(self) -> None:
        """Cancel all jobs and wait until every node is idle."""
        self.output("scancel", "--user", str(os.getuid()))
        wait_until("an empty queue", lambda: not self.output("squeue", "-h"), 60)
        idle = ("sinfo", "-h", "-N", "-p", "high", "-t", "idle", "-o", "%N")
        wait_until("idle nodes", lambda: len(self.output(*idle).split()) == 4, 90)
