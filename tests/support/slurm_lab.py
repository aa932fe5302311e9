"""A real SLURM for tests, and runs on it: thin networks, 32 px, four processes on two nodes. Every wait has a limit."""

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
THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]
PACE = [
    "log_every=1",
    "checkpoint_every=20",
    "evaluate_every=30",
    "keep_checkpoints=9",
    "ema.half_life=20",
]
SITE = "partition = 'low'\nnodes = 2\nprocesses = 2\nminutes = 30\nwarning = 30\n"
PAIR = SITE.replace("processes = 2", "processes = 1")  # where four would show nothing more


def until(what: str, done: Callable[[], bool], seconds: float = 120, every: float = 0.05) -> None:
    """Wait for `done()`, and fail after `seconds`: a job that dies early must not hang the tests."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(every)


def training(shards: Path, *changes: str, steps: int = STEPS) -> list[str]:
    """The words of launch.train, less --run."""
    sets = [
        word
        for change in [*THIN, f"images={4 * steps}", *PACE, *changes]
        for word in ("--set", change)
    ]
    return ["--recipe", "nampouri_unet", "--shards", str(shards), "--tracker", "none", *sets]


def journal(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in entries if kind in (None, entry["kind"])]


def steps_of(run: Path, kind: str) -> list[int]:
    """The steps of all lines of a kind."""
    return [entry["step"] for entry in journal(run, kind)]


def weights(run: Path) -> dict[str, bytes]:
    """Every tensor file of the last checkpoint: both networks, both optimizers, the average."""
    found = {
        path.name: path.read_bytes() for path in checkpoint_folder(run, STEPS).glob("*.safetensors")
    }
    assert len(found) == 5
    return found


@dataclass(frozen=True)
class Lab:
    """A development cluster of the tests' own, and what a person at its login node does."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """What DIR/env makes of a shell."""
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**environment(), "SLURM_CONF": f"{self.folder}/etc/slurm.conf", "PATH": path}

    def ask(self, *words: str, cwd: Path = ROOT) -> str:
        """A command's output; it must succeed."""
        done = self.run(words, cwd)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def run(self, words: Sequence[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command, in eight minutes at most."""
        return subprocess.run(
            words,
            env=self.environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )

    def door(
        self, module: str, *words: object, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """One of the project's own doors."""
        return self.run([sys.executable, "-m", module, *map(str, words)], cwd)

    def submit(self, run: Path, words: Sequence[str], site: str = SITE) -> str:
        """Send a training job; its number."""
        file = run.with_suffix(".toml")
        file.write_text(site)
        with redirect_stdout(io.StringIO()) as said, self.at_login_node():
            assert submit.main(["--cluster", str(file), "--run", str(run), "--", *words]) == 0
        return said.getvalue().split()[1].rstrip(":")

    @contextmanager
    def at_login_node(self) -> Iterator[None]:
        """This process in the cluster's environment: a door called here need not import torch once more."""
        before, inside = dict(os.environ), self.environment()
        os.environ.clear()
        os.environ.update(inside)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, ..."""
        return self.ask("squeue", "-h", "--states=all", "-j", job, "-o", "%T")

    def restarts(self, job: str) -> int:
        """How often SLURM has requeued it."""
        return int(self.ask("squeue", "-h", "--states=all", "-j", job, "-O", "RestartCnt"))

    def until_step(self, run: Path, step: int) -> None:
        """Wait until a run has made a step."""
        until(f"step {step} of {run}", lambda: max(steps_of(run, "train"), default=0) >= step, 180)

    def until_ended(self, job: str, run: Path) -> str:
        """Wait until a job is over; its state, and on failure what its processes said."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        until(f"end of job {job}", lambda: self.state(job) in over, 240)
        state = self.state(job)
        if state == "FAILED":
            print(
                "".join(
                    path.read_text()[-2000:] for path in sorted((run / "slurm").glob("*_log.err"))
                )
            )
        return state

    def ranks(self, run: Path) -> dict[int, psutil.Process]:
        """The processes that train a run, by rank."""
        found = {}
        for one in psutil.process_iter(["name", "cmdline", "environ"]):
            rank = (one.info["environ"] or {}).get(
                "SLURM_PROCID"
            )  # none of one that has just ended
            if (
                rank
                and str(run / "slurm") in (one.info["cmdline"] or [])
                and one.info["name"].startswith("python")
            ):
                found[int(rank)] = one
        return found

    @contextmanager
    def held(self, run: Path) -> Iterator[list[psutil.Process]]:
        """The processes that train a run, held still inside the block: or a quick machine is done before SLURM is."""
        ranks = list(self.ranks(run).values())
        for one in ranks:
            one.suspend()
        until(
            "all held still",
            lambda: all(one.status() == psutil.STATUS_STOPPED for one in ranks),
            30,
        )
        try:
            yield ranks
        finally:
            for one in ranks:
                with suppress(psutil.NoSuchProcess):
                    one.resume()

    def strike(self, event: str, node: str) -> None:
        """A power cut, a pulled cable, or an administrator who calls the node down."""
        if event == "state=down":
            self.ask("scontrol", "update", f"nodename={node}", event, "reason=test")
            return
        done = self.door("slurm.devcluster", event, node, "--dir", self.folder)
        assert done.returncode == 0, done.stderr

    def tidy(self) -> None:
        """No job is left, every node is idle."""
        self.ask("scancel", "--user", str(os.getuid()))
        until("an empty queue", lambda: not self.ask("squeue", "-h"), 60)
        idle = ("sinfo", "-h", "-N", "-p", "high", "-t", "idle", "-o", "%N")
        until("idle nodes", lambda: len(self.ask(*idle).split()) == 4, 90)
