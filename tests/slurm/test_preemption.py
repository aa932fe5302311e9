"""USR2 and TERM during training, without a cluster.

All ranks save between two steps and exit with status 75; the resumed run loses no step.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colortrain.runs.layout import EXIT_STOPPED, checkpoint_folder, checkpoint_steps
from colortrain.training import preemption
from tests.support.processes import ROOT, environment
from tests.support.small_shard_set import small_set

STEPS = 120  # enough that the run still trains when the signal arrives
SETTINGS = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=3",
    f"images={3 * STEPS}",
    "log_every=1",
    "checkpoint_every=45",
    "keep_checkpoints=9",
    "ema.half_life=20",
]


def start_ranks(shards: Path, run: Path, world_size: int) -> list[subprocess.Popen[bytes]]:
    """Start processes with torch's variables, as a cluster does.

    Without a launcher, the exit status of each process is visible.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "launch.train", "--recipe", "nampouri_unet"]
    command += ["--shards", str(shards), "--run", str(run), "--tracker", "none"]
    command += [argument for change in SETTINGS for argument in ("--set", change)]
    processes = []
    for rank in range(world_size):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        env = {**environment(), **(variables if world_size > 1 else {})}
        processes.append(subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.DEVNULL))
    return processes


def exit_statuses(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait(timeout=240) for process in processes]


def steps(run: Path, kind: str) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["step"] for entry in entries if entry["kind"] == kind]


def weights(run: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in checkpoint_folder(run, STEPS).glob("*.safetensors")
    }


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("world_size", "number"), [(1, signal.SIGTERM), (3, signal.SIGUSR2)], ids=["one", "three"]
)
def test_no_step_is_lost(tmp_path: Path, world_size: int, number: signal.Signals) -> None:
    """Only the last rank gets the signal.

    With three ranks, sums depend on the layout of DDP's buckets (see
    `rebuild_ddp_buckets`).
    """
    shards = small_set(tmp_path / "set", size=32, count=22)
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert exit_statuses(start_ranks(shards, undisturbed, world_size)) == [0] * world_size
    processes = start_ranks(shards, run, world_size)
    end = time.monotonic() + 180
    while max(steps(run, "train"), default=0) < 5:
        assert time.monotonic() < end
        time.sleep(0.01)
    processes[-1].send_signal(number)
    assert exit_statuses(processes) == [EXIT_STOPPED] * world_size
    (stopped,) = steps(run, "stop")
    assert 5 <= stopped < STEPS
    assert stopped in checkpoint_steps(run)
    assert exit_statuses(start_ranks(shards, run, world_size)) == [0] * world_size
    assert steps(run, "start") == [0, stopped]
    assert len(weights(run)) == 5
    assert weights(run) == weights(undisturbed)


def test_signals_are_handled_only_inside_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        with preemption.handling_signals():
            assert not preemption.stop_requested()
            os.kill(os.getpid(), number)
            assert preemption.stop_requested()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_to_a_forked_child_does_not_stop_the_parent() -> None:
    """The child inherits the handler.

    TERM to all processes of a job step must neither end it nor make it request a stop.
    """
    with preemption.handling_signals():
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(preemption.stop_requested())
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not preemption.stop_requested()
