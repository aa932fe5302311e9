"""A server that forks launchers of training, because `accelerate launch` takes seconds.

    python -m tests.support.warm_processes

It imports everything once. For every JSON request (`Request`), one per line, it prints
the process id of a launcher: torch's elastic agent, which `accelerate launch` runs too,
with one forked process per rank that calls `launch.train.main`. When that launcher has
ended, the server prints its exit status.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch

# imported here so that no fork has to; torch imports _dynamo for its first optimizer
import torch._dynamo
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from typing_extensions import NotRequired

from colortrain.lab import Batch
from colortrain.metrics import evaluate
from colortrain.runs import checkpoint
from colortrain.training.trainer import Trainer
from launch import train
from shards.errors import run_command

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failure(TypedDict):
    """A failure of one rank after a step, once.

    `what` is "kill" or "stop" (by signal), "hang", "raise", "spoil" (change a weight),
    "drift" (change the last bits of all tensors), or a text to raise as an error of the
    next collective operation.
    """

    rank: int
    step: int
    what: str


class Request(TypedDict):
    """One launcher: arguments of launch.train, number of ranks, log file, failures."""

    argv: list[str]
    processes: int
    log: str
    max_restarts: NotRequired[int]
    slow_fsync: NotRequired[float]  # seconds per call
    largest_file: NotRequired[int]  # bytes
    slow_scoring: NotRequired[float]  # seconds per chunk of a validation
    late_rank: NotRequired[int]  # a rank that at first sees no checkpoints; it hashes none
    failure: NotRequired[Failure]


def serve() -> None:
    """Fork a launcher for every request; print its process id and its exit status."""
    gc.freeze()  # garbage collection in a fork would copy every page with an object
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become_launcher(request)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_launcher(request: Request) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.setsid()
    _slow_down_fsync(request.get("slow_fsync", 0))
    if "largest_file" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    if request["processes"] == 1:
        _slow_down_scoring(request.get("slow_scoring", 0))
        os._exit(run_command("launch.train", train.main, request["argv"]))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=request["processes"],
        start_method="fork",
        monitor_interval=0.05,
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{_free_port()}",
        rdzv_configs={"rank": 0},
        run_id="warm",
        max_restarts=request.get("max_restarts", 0),
    )
    try:
        elastic_launch(config, _rank)(request)
    except ChildFailedError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(request: Request) -> None:
    os.environ["ACCELERATE_USE_CPU"] = "true"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork inherits the agent's handlers
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _slow_down_scoring(request.get("slow_scoring", 0))
    if request.get("late_rank") == int(os.environ["RANK"]):
        _hide_checkpoints(seconds=1)
    if "failure" in request and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        _inject(request["failure"])
    status = run_command("launch.train", train.main, request["argv"])
    if status:  # the agent expects success as a value returned
        os._exit(status)


def _inject(failure: Failure) -> None:
    """Let this rank fail after the step, if it is the one."""
    real = Trainer.take_step

    def step_and_fail(trainer: Trainer, batch: Batch) -> None:
        real(trainer, batch)
        if trainer.step == failure["step"] and int(os.environ["RANK"]) == failure["rank"]:
            _fail(failure["what"], trainer)

    setattr(Trainer, "take_step", step_and_fail)  # noqa: B010


def _fail(what: str, trainer: Trainer) -> None:
    if what == "hang":
        time.sleep(3600)
    if what == "raise":
        raise ZeroDivisionError("injected failure")
    if what == "drift":
        with torch.no_grad():
            for tensors in trainer.state.tensor_files().values():
                for tensor in filter(torch.is_floating_point, tensors.values()):
                    tensor.mul_(1 + 2**-21)
    elif what == "spoil":
        with torch.no_grad():
            next(trainer.networks["critic"].module.parameters()).view(-1)[0] += 1e-7
    elif what in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[what])
    else:
        setattr(torch.distributed, "all_reduce", partial(_raise, what))  # noqa: B010


def _raise(message: str, *_: Any, **__: Any) -> None:
    raise torch.distributed.DistBackendError(message)


def _slow_down_fsync(seconds: float) -> None:
    """Simulate a slow disk, so that kills hit a save far more often."""
    real = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        real(descriptor)

    if seconds:
        setattr(os, "fsync", slow)  # noqa: B010


def _slow_down_scoring(seconds: float) -> None:
    """Simulate a large validation split."""
    real = evaluate.metrics_on_device

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return real(*args, **kwargs)

    if seconds:
        setattr(evaluate, "metrics_on_device", slow)  # noqa: B010


def _hide_checkpoints(seconds: float) -> None:
    """Simulate a network file system whose listings are old for some seconds."""
    real, until = Path.iterdir, time.monotonic() + seconds

    def iterdir(path: Path) -> Iterator[Path]:
        old = path.name.startswith("step-") and time.monotonic() < until
        return iter(()) if old else real(path)

    def refuse(path: Path) -> str:
        raise AssertionError(f"hashed {path}")

    setattr(Path, "iterdir", iterdir)  # noqa: B010
    setattr(checkpoint, "sha256_of", refuse)  # noqa: B010


if __name__ == "__main__":
    serve()
