"""A launcher that has imported everything already: `accelerate launch` costs seconds a start, this costs a fork.

    python -m tests.support.warm_processes

Reads one JSON request a line (`Request`) and answers with the process number of a launcher: torch's elastic agent,
which `accelerate launch` runs too, with one forked process a rank that each call `launch.train.main`. Once that
launcher has ended, the next line is its exit status.
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
from typing import TypedDict

import torch

# what a training imports on the way, so that no fork has to
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from typing_extensions import NotRequired

from colortrain.lab import Batch
from colortrain.training.trainer import Trainer
from launch import train
from shards.errors import run_command


class Trouble(TypedDict):
    """What befalls one rank once, after a step: "kill" or "stop" by signal, "hang", "raise", or "spoil" a weight."""

    rank: int
    step: int
    what: str


class Request(TypedDict):
    """One launcher: words of the door, ranks, where all print to; then restarts, a slow or small disk, and trouble."""

    argv: list[str]
    processes: int
    log: str
    max_restarts: NotRequired[int]
    slow_fsync: NotRequired[float]  # seconds a call
    largest_file: NotRequired[int]  # bytes
    trouble: NotRequired[Trouble]


def serve() -> None:
    """Fork a launcher for every request, and tell what became of it."""
    gc.freeze()  # collections in a fork would copy every page that holds an object
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
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _rank(request: Request) -> None:
    os.environ["ACCELERATE_USE_CPU"] = "true"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the agent's handlers
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "trouble" in request and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        _await(request["trouble"])
    status = run_command("launch.train", train.main, request["argv"])
    if status:  # the agent expects success as a value returned
        os._exit(status)


def _await(trouble: Trouble) -> None:
    """Let the trouble befall this rank, if it is the one, after the step."""
    real = Trainer.take_step

    def step_and_suffer(trainer: Trainer, batch: Batch) -> None:
        real(trainer, batch)
        if trainer.step == trouble["step"] and int(os.environ["RANK"]) == trouble["rank"]:
            _suffer(trouble["what"], trainer)

    setattr(Trainer, "take_step", step_and_suffer)  # noqa: B010


def _suffer(what: str, trainer: Trainer) -> None:
    if what == "hang":
        time.sleep(3600)
    if what == "raise":
        raise ZeroDivisionError("trouble")
    if what == "spoil":
        with torch.no_grad():
            next(trainer.networks["critic"].module.parameters()).view(-1)[0] += 1e-7
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what])


def _slow_down_fsync(seconds: float) -> None:
    """A slow disk: kills then fall into saves far more often."""
    real = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        real(descriptor)

    if seconds:
        setattr(os, "fsync", slow)  # noqa: B010


if __name__ == "__main__":
    serve()
