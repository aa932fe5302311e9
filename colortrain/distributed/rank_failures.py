"""Find the rank that died or hangs, and end the other processes within the timeout.

Errors of NCCL were only simulated: nothing here was run on a GPU.
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
from accelerate.utils import gather_object

from colortrain.distributed.device import num_gpus
from shards.errors import describe

# When a collective operation (such as an all-reduce) fails on CPUs, its error says only
# that a connection broke or that time ran out. Therefore every rank that gets such
# an error reports itself in the launcher's TCP store. The ranks that have not reported
# themselves after a few seconds are those that died or hang. On GPUs, healthy ranks do
# not report themselves either: they wait for the GPU, and get no error until NCCL's own
# timeout. There the error itself may be the cause, so it is always printed.
_REPORT_SECONDS = 5.0  # within which ranks must report themselves
_LONGEST_MESSAGE = 1000  # characters of an error's message on one line
_GRACE = 2.0  # seconds after the timeout; by then, waiting ranks have failed
_COLLECTIVE_ERROR = re.compile(
    r"gloo|nccl|process ?group|connection (closed|reset|refused)|broken pipe|timed out",
    re.IGNORECASE,
)


class LostRanksError(Exception):
    """Raised when other processes of the run have died, hang or failed.

    `line` is an error message that names these processes, or "" if they have printed
    their own errors.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


class Watchdog:
    """Prints this process's stack after `seconds` without a call of `heartbeat`."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.last_heartbeat = time.monotonic()
        self.stopped = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while not self.stopped.wait(0.5):
            if time.monotonic() - self.last_heartbeat > self.seconds:
                print(
                    f"{self.name} has taken no step for {self.seconds:.0f} s; its stack:",
                    file=sys.stderr,
                )
                # The launcher will soon kill this process. Processes that only wait for
                # it get an error earlier, which stops their own watchdogs.
                faulthandler.dump_traceback(sys.stderr)
                return


_watchdog: Watchdog | None = None  # of this process, inside `detect_lost_ranks`


def heartbeat() -> None:
    """Reset this process's watchdog; the training loop calls this before each step."""
    if _watchdog is not None:
        _watchdog.last_heartbeat = time.monotonic()


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
def detect_lost_ranks(accelerator: Accelerator, timeout: float) -> Iterator[None]:
    """Raise LostRanksError if a collective operation fails inside the `with` block.

    `timeout` is the timeout of collective operations, in seconds.
    """
    if accelerator.num_processes == 1:
        yield
        return
    faulthandler.enable()  # so that a crash in compiled code leaves a stack trace
    rank = accelerator.process_index
    names = gather_object([f"rank {rank} ({socket.gethostname()}, process {os.getpid()})"])
    try:
        with _watched(names[rank], timeout + _GRACE):
            yield
    except Exception as error:
        if is_collective_error(error):
            # at once, because the launcher may soon kill this process
            print(f"{names[rank]}: {on_one_line(error)}", file=sys.stderr, flush=True)
            on_gpus = accelerator.device.type == "cuda"
            raise LostRanksError(describe_lost_ranks(names, rank, on_gpus)) from error
        if describe(error) is None:
            print(f"{names[rank]} failed:", file=sys.stderr)  # the traceback follows
        _report(rank, "failed")  # so that the other ranks know
        raise


def init_process_group_after_restart(timeout: float) -> None:
    """Initialize the process group if the launcher has restarted the run's processes.

    `timeout` is the timeout of collective operations, in seconds.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or torch.distributed.is_initialized():
        return
    # The launcher's TCP store still contains the addresses of the previous attempt's
    # processes, which no longer exist (torch 2.13, static rendezvous), so the group
    # uses new keys in the store.
    torch.distributed.init_process_group(
        "nccl" if num_gpus() else "gloo",
        store=torch.distributed.PrefixStore(f"colortrain/attempt/{attempt}", _store(timeout)),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=timeout),
    )


def is_collective_error(error: BaseException) -> bool:
    """Return whether an error was raised by a collective operation.

    The cause may be that another rank was lost, or on a GPU an error of NCCL itself.
    """
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(_COLLECTIVE_ERROR.search(str(error)))


def on_one_line(error: BaseException) -> str:
    """Return the message of an error as one line, without a stack of C++ functions."""
    message = str(error).partition("Exception raised from")[0]
    return " ".join(message.split())[:_LONGEST_MESSAGE] or type(error).__name__


def describe_lost_ranks(names: Sequence[str], rank: int, on_gpus: bool = False) -> str:
    """Return an error message that names the ranks that died or hang.

    `names` are the names of all ranks, in order; `rank` is the number of this one. The
    message is "" if a failed rank has printed its own error. With `on_gpus`, no rank is
    named, because a healthy one may wait for its GPU.
    """
    store = _report(rank, "alive")
    if store is None:
        return (
            f"{names[rank]} lost the connection to the other ranks, and the process that hosts "
            "the launcher's store is gone as well; run the same command again to resume from the "
            "last checkpoint"
        )
    keys = [_key(other) for other in range(len(names))]
    # ranks that do not report themselves in time are lost
    until = time.monotonic() + _REPORT_SECONDS
    while time.monotonic() < until and not store.check(keys):
        time.sleep(0.1)
    reported = [store.check([key]) for key in keys]
    if any(store.get(key) == b"failed" for key, there in zip(keys, reported, strict=True) if there):
        return ""
    if on_gpus:
        return (
            "a collective operation failed: see the messages of the ranks and of NCCL above; "
            "run the same command again to resume from the last checkpoint"
        )
    lost = [name for name, there in zip(names, reported, strict=True) if not there]
    subject = ", ".join(lost) or "a connection between processes"
    return (
        f"{subject} died or hangs: see its output above; "
        "run the same command again to resume from the last checkpoint"
    )


def _report(rank: int, status: str) -> torch.distributed.TCPStore | None:
    """Write this rank's status to the TCP store; return the store, if reachable."""
    try:
        store = _store(_REPORT_SECONDS)
        store.set(_key(rank), status)  # "alive" or "failed"
    except (RuntimeError, KeyError):
        return None
    return store


def _store(timeout: float) -> torch.distributed.TCPStore:
    """Return a connection to the TCP store at MASTER_ADDR and MASTER_PORT."""
    # all ranks share this store of keys and values; the launcher or rank 0 hosts it
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return torch.distributed.TCPStore(address, port, timeout=timedelta(seconds=timeout))


def _key(rank: int) -> str:
    return f"colortrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{rank}"
