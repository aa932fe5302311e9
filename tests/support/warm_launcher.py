"""The other end of `tests.support.warm_processes`: launchers of training that start fast and die on request."""

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

PATIENCE = 120.0  # seconds


class Launch:
    """One launcher under way with its ranks."""

    def __init__(self, answers: Iterator[str], log: Path) -> None:
        self.answers, self.log = answers, log
        self.pid = int(next(answers))
        self.began = time.monotonic()

    def is_running(self) -> bool:
        """Whether the launcher lives."""
        return _lives(self.pid)

    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks, in their order."""
        return psutil.Process(self.pid).children(recursive=True)

    def wait_until(self, happened: Callable[[], Any]) -> bool:
        """Look every two milliseconds; False if the launcher ended before."""
        while not happened():
            if not self.is_running():
                return False
            assert time.monotonic() < self.began + PATIENCE, self.log.read_text()
            time.sleep(0.002)
        return True

    def kill(self) -> None:
        """SIGKILL to the launcher and its ranks at one instant: the ranks have sessions of their own."""
        with suppress(psutil.NoSuchProcess):
            os.kill(self.pid, signal.SIGSTOP)  # it must not start another rank in between
            everyone = [child.pid for child in self.ranks()]
            for pid in (*everyone, self.pid):
                os.kill(pid, signal.SIGKILL)
            self.wait_until(lambda: not any(map(_lives, everyone)))
        self.status()

    def status(self) -> int:
        """Wait for the launcher's end."""
        return int(next(self.answers))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class WarmLauncher:
    """Starts launchers in turn, one at a time."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        self.server, self.log = server, log

    def start(self, argv: Sequence[object], processes: int = 2, **options: Any) -> Launch:
        """Start `launch.train` with these words; options are those of a request to `warm`."""
        self.log.write_text("")  # there from the start, for those who wait for a line
        request = {
            "argv": [str(word) for word in argv],
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
        """The same to its end, which must be a good one; what it printed."""
        assert self.start(argv, processes, **options).status() == 0, self.log.read_text()
        return self.log.read_text()


@contextmanager
def warm_launcher(folder: Path) -> Iterator[WarmLauncher]:
    """A launcher that is warm as long as the block lasts; what it prints goes into `folder`."""
    words = [sys.executable, "-m", "tests.support.warm_processes"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    ) as server:
        yield WarmLauncher(server, folder / "log.txt")
        assert server.stdin
        server.stdin.close()
