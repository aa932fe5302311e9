"""When a process of a run dies or hangs: the others ask around, say its name and end, each within the timeout.

A collective that fails says only that some connection broke, or that time ran out. So whoever sees one fail answers to
a roll call in the launcher's store; who is missing there after a few seconds is who died or hangs.
"""

from __future__ import annotations

import faulthandler
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, parse_flag_from_env

from shards.errors import describe

_SECONDS = 5.0  # to answer in
_GRACE = 2.0  # seconds after which who waited in vain has given up
_BROKEN = re.compile(
    r"gloo|nccl|process ?group|connection (closed|reset|refused)|broken pipe|timed out",
    re.IGNORECASE,
)


class LostRanksError(Exception):
    """Other processes of the run died, hang or failed; `line` says which, "" where they have said it themselves."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


class Watchdog:
    """Prints where this process stands once it has not called `heartbeat` for some seconds: it hangs, and is killed soon.

    Processes that merely wait for it fail before that and stop their own watchdog.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.seen = time.monotonic()
        self.stopped = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while not self.stopped.wait(0.5):
            if time.monotonic() - self.seen > self.seconds:
                print(
                    f"{self.name} has taken no step for {self.seconds:.0f} s, it stands here:",
                    file=sys.stderr,
                )
                faulthandler.dump_traceback(sys.stderr)
                return


_watchdog: Watchdog | None = None  # of this process, inside `roll_call`


def heartbeat() -> None:
    """Called at every step boundary."""
    if _watchdog is not None:
        _watchdog.seen = time.monotonic()


@contextmanager
def _watched(name: str, seconds: float) -> Iterator[None]:
    global _watchdog
    _watchdog = Watchdog(name, seconds)
    try:
        yield
    finally:
        _watchdog.stopped.set()
        _watchdog = None


@contextmanager
def roll_call(accelerator: Accelerator, timeout: float) -> Iterator[None]:
    """Inside the block a collective that fails becomes a `LostRanksError`; other errors are told to the other ranks.

    `timeout` is that of collectives, in seconds.
    """
    if accelerator.num_processes == 1:
        yield
        return
    faulthandler.enable()  # a crash in compiled code leaves a traceback too
    rank = accelerator.process_index
    names = gather_object([f"rank {rank} ({socket.gethostname()}, process {os.getpid()})"])
    try:
        with _watched(names[rank], timeout + _GRACE):
            yield
    except Exception as error:
        if is_broken(error):
            raise LostRanksError(missing(names, rank)) from error
        if describe(error) is None:
            print(f"{names[rank]} failed:", file=sys.stderr)  # the traceback follows
        _answer(rank, "failed")
        raise


def rejoin_roll_call(timeout: float) -> None:
    """After a restart by the launcher: let the ranks meet under names of their own.

    The launcher's store is still the one of the attempt before (torch 2.13, static rendezvous): in it the new processes
    would find the addresses of the dead.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(
        "gloo"
        if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        else "nccl",
        store=torch.distributed.PrefixStore(f"colortrain/attempt/{attempt}", _store(timeout)),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=timeout),
    )


def is_broken(error: BaseException) -> bool:
    """Whether an error came from a collective that another rank did not take part in."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(_BROKEN.search(str(error)))


def missing(names: Sequence[str], rank: int) -> str:
    """Answer to the roll call; who did not in time, in one line, or "" if one has failed and said so."""
    store = _answer(rank, "here")
    if store is None:
        return f"{names[rank]} lost the others, and the process that kept the list of them is gone as well"
    keys = [_key(other) for other in range(len(names))]
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until and not store.check(keys):
        time.sleep(0.1)
    answered = [store.check([key]) for key in keys]
    if any(store.get(key) == b"failed" for key, here in zip(keys, answered, strict=True) if here):
        return ""
    gone = [name for name, here in zip(names, answered, strict=True) if not here]
    who = ", ".join(gone) or "a connection between processes"
    return f"{who} died or hangs: see what it said above; the same command goes on from the last checkpoint"


def _answer(rank: int, what: str) -> torch.distributed.TCPStore | None:
    """Note what became of this rank in the store that the ranks met in, None where that is gone."""
    try:
        store = _store(_SECONDS)
        store.set(_key(rank), what)
    except (RuntimeError, KeyError):
        return None
    return store


def _store(timeout: float) -> torch.distributed.TCPStore:
    """The store that the launcher, or rank 0, keeps for the ranks to meet in."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return torch.distributed.TCPStore(address, port, timeout=timedelta(seconds=timeout))


def _key(rank: int) -> str:
    return f"colortrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{rank}"
