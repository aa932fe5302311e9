"""A client of `tests.support.warm_processes`: launchers that start fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import ROOT, environment

TIMEOUT = 120.0  # seconds


class Launch:
    """A running launcher with its ranks."""

    def __init__(self, replies: Iterator[str], log: Path) -> None:
        self.replies, self.log = replies, log
        self.pid = int(next(replies))
        self.started = time.monotonic()

    def is_running(self) -> bool:
        """Return whether the launcher is running."""
        return _is_running(self.pid)

    def process(self) -> psutil.Process:
        """Return the launcher, which trains itself if it has one process."""
        return psutil.Process(self.pid)

    def ranks(self) -> list[psutil.Process]:
        """Return the processes of the ranks, in order of rank."""
        return self.process().children(recursive=True)

    def wait_until(self, condition: Callable[[], Any]) -> bool:
        """Wait until `condition()` is true; return False if the launcher ended before.

        The condition is evaluated every two milliseconds.
        """
        while not condition():
            if not self.is_running():
                return False
            assert time.monotonic() < self.started + TIMEOUT, self.log.read_text()
            time.sleep(0.002)
        return True

    def kill(self) -> None:
        """Kill the launcher and its ranks at the same time, and wait for their end.

        Each has to be killed, because the ranks have sessions of their own.
        """
        with suppress(psutil.NoSuchProcess):
            os.kill(self.pid, signal.SIGSTOP)  # so that it starts no other rank in between
            pids = [child.pid for child in self.ranks()]
            for pid in (*pids, self.pid):
                os.kill(pid, signal.SIGKILL)
            self.wait_until(lambda: not any(map(_is_running, pids)))
        self.status()

    def status(self) -> int:
        """Wait for the launcher to end and return its exit status."""
        return int(next(self.replies))


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class WarmLauncher:
    """Starts launchers, one at a time."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        self.server, self.log = server, log

    def start(self, argv: Sequence[object], processes: int = 2, **options: Any) -> Launch:
        """Start `launch.train` with `argv`; `options` are fields of a `Request`."""
        self.log.write_text("")  # so that tests can read it at once
        request = {
            "argv": [str(argument) for argument in argv],
            "processes": processes,
            "log": str(self.log),
            **options,
        }
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Launch(iter(self.server.stdout), self.log)

    def run(self, argv: Sequence[object], processes: int = 2, **options: Any) -> str:
        """Start, wait for the end and return the output; the exit status must be 0."""
        assert self.start(argv, processes, **options).status() == 0, self.log.read_text()
        return self.log.read_text()


@contextmanager
def warm_launcher(folder: Path) -> Iterator[WarmLauncher]:
    """Run the server during the block; output goes to a log file in `folder`."""
    argv = [sys.executable, "-m", "tests.support.warm_processes"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    ) as server:
        yield WarmLauncher(server, folder / "log.txt")
        assert server.stdin
        server.stdin.close()
