"""USR2 and TERM to training without a cluster: all ranks save between two steps, leave with 75, and nothing is lost."""

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

STEPS = 120  # some seconds of them are left when the signal comes
THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=3",
]
PACE = [
    f"images={3 * STEPS}",
    "log_every=1",
    "checkpoint_every=45",
    "keep_checkpoints=9",
    "ema.half_life=20",
]


def ranks(shards: Path, run: Path, world: int) -> list[subprocess.Popen[bytes]]:
    """`world` processes with torch's variables, as a cluster starts them: their own exit statuses are seen."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sets = [word for change in [*THIN, *PACE] for word in ("--set", change)]
    words = [
        "--recipe",
        "nampouri_unet",
        "--shards",
        str(shards),
        "--run",
        str(run),
        "--tracker",
        "none",
        *sets,
    ]
    found = []
    for rank in range(world):
        torch = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        env = (
            {**environment(), **{name: str(value) for name, value in torch.items()}}
            if world > 1
            else environment()
        )
        line = [sys.executable, "-m", "launch.train", *words]
        found.append(subprocess.Popen(line, env=env, cwd=ROOT, stderr=subprocess.DEVNULL))
    return found


def statuses(processes: list[subprocess.Popen[bytes]]) -> list[int]:
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
    ("world", "number"), [(1, signal.SIGTERM), (3, signal.SIGUSR2)], ids=["one", "three"]
)
def test_no_step_is_lost(tmp_path: Path, world: int, number: signal.Signals) -> None:
    """The signal comes to the last rank alone. Of three, sums depend on the layout of DDP's buckets (`rebuild_ddp_buckets`)."""
    shards = small_set(tmp_path / "set", size=32, count=22)
    assert statuses(ranks(shards, tmp_path / "undisturbed", world)) == [0] * world
    run = tmp_path / "run"
    processes = ranks(shards, run, world)
    end = time.monotonic() + 180
    while max(steps(run, "train"), default=0) < 5:
        assert time.monotonic() < end
        time.sleep(0.01)
    processes[-1].send_signal(number)
    assert statuses(processes) == [EXIT_STOPPED] * world
    (stopped,) = steps(run, "stop")
    assert 5 <= stopped < STEPS
    assert stopped in checkpoint_steps(run)
    assert statuses(ranks(shards, run, world)) == [0] * world
    assert steps(run, "start") == [0, stopped]
    assert len(weights(run)) == 5
    assert weights(run) == weights(tmp_path / "undisturbed")


def test_signals_are_heard_inside_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        with preemption.handling_signals():
            assert not preemption.stop_requested()
            os.kill(os.getpid(), number)
            assert preemption.stop_requested()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_child_does_not_answer_for_us() -> None:
    """It inherits the handler: TERM to all processes of a step must neither end it nor make it ask for anything."""
    with preemption.handling_signals():
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(preemption.stop_requested())
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not preemption.stop_requested()
