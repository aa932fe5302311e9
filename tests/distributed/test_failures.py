"""One of two ranks dies, hangs, fails, diverges or cannot write.

The run ends within the timeout and names the rank.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from tests.support.processes import ROOT, command, environment
from tests.support.small_shard_set import small_set
from tests.support.warm_launcher import WarmLauncher

THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=2",
    "critic.base_channels=2",
    "batch_size=4",
]
STEPS = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=8)


def arguments(shards: Path, run: Path, *more: object, steps: int = STEPS) -> list[object]:
    changes = [
        *THIN,
        f"images={4 * steps}",
        "log_every=1",
        "checkpoint_every=4",
        "keep_checkpoints=9",
    ]
    sets = [text for change in changes for text in ("--set", change)]
    return [
        "--recipe",
        "nampouri_unet",
        "--shards",
        shards,
        "--run",
        run,
        "--tracker",
        "none",
        *sets,
        *more,
    ]


def tensors(run: Path, step: int = STEPS) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in checkpoint_folder(run, step).glob("*.safetensors")
    }


def failure(what: str, rank: int = 1) -> dict[str, object]:
    return {"rank": rank, "step": 6, "what": what}


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_is_named(
    warm: WarmLauncher, shards: Path, tmp_path: Path, rank: int
) -> None:
    launch = warm.start(arguments(shards, tmp_path / "run"), failure=failure("kill", rank))
    assert launch.status() == 1
    output = launch.log.read_text()
    assert "SIGKILL" in output  # the launcher's own summary
    assert f"rank {rank} (" in output.replace("rank      : ", "rank "), output
    assert checkpoint_steps(tmp_path / "run") in (
        [4],
        [4] if rank else [],
    )  # rank 0 may die while it writes


@pytest.mark.distributed
@pytest.mark.parametrize("what", ["stop", "hang"])
def test_a_hanging_rank_ends_the_others_within_the_timeout(
    warm: WarmLauncher, shards: Path, tmp_path: Path, what: str
) -> None:
    """The launcher kills a stopped rank after 30 s; the test does not wait for it."""
    launch = warm.start(arguments(shards, tmp_path / "run", "--timeout", 5), failure=failure(what))
    assert launch.wait_until(lambda: "died or hangs" in launch.log.read_text())
    output = launch.log.read_text()
    launch.kill()
    lines = [line for line in output.splitlines() if "colortrain train: error" in line]
    assert len(lines) == 1
    assert "rank 1 (" in lines[0]
    assert "\nTraceback" not in output
    if what == "hang":  # a stopped process cannot print its stack
        assert re.search(r"rank 1 \(.*\) has taken no step for 7 s; its stack:", output)
        assert "in _fail" in output


@pytest.mark.slow
@pytest.mark.distributed
def test_a_hanging_rank_ends_the_launcher(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    launch = warm.start(
        arguments(shards, tmp_path / "run", "--timeout", 5), failure=failure("stop")
    )
    assert launch.status() == 1


@pytest.mark.distributed
def test_a_rank_that_fails_leaves_its_name_and_traceback(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    launch = warm.start(arguments(shards, tmp_path / "run"), failure=failure("raise"))
    assert launch.status() == 1
    output = launch.log.read_text()
    assert output.count("\nTraceback") == 1  # the launcher indents its own
    assert output[: output.index("\nTraceback")].splitlines()[-1].startswith("rank 1 (")
    assert "ZeroDivisionError: injected failure" in output


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_runs_out_in_a_collective_is_one_line(
    warm: WarmLauncher, shards: Path, tmp_path: Path, rank: int
) -> None:
    """As NCCL reports it; gloo, which runs here, needs no memory of a GPU."""
    error = "NCCL error in: NCCLUtils.cpp:94\nLast error:\nCuda failure 2 'out of memory'"
    launch = warm.start(arguments(shards, tmp_path / "run"), failure=failure(error, rank))
    launch.status()  # the test's own launcher does not pass a rank's status on
    output = launch.log.read_text()
    lines = [line for line in output.splitlines() if "colortrain train: error" in line]
    assert len(lines) == 1, output
    assert "not enough memory for this recipe (Cuda failure 2 'out of memory'): set a" in lines[0]
    assert ("rank 1: " in lines[0]) == bool(rank)
    assert "died or hangs" not in output
    assert "\nTraceback" not in output


@pytest.mark.distributed
def test_an_error_of_a_collective_is_printed_with_its_rank(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    error = "NCCL error in: NCCLUtils.cpp:94\nLast error:\nNo route to host"
    launch = warm.start(arguments(shards, tmp_path / "run"), failure=failure(error))
    assert launch.wait_until(lambda: "No route to host" in launch.log.read_text())
    launch.kill()
    (line,) = [each for each in launch.log.read_text().splitlines() if "No route" in each]
    assert re.fullmatch(
        r"rank 1 \(.*\): NCCL error in: NCCLUtils.cpp:94 Last error: No route to host", line
    )


@pytest.mark.distributed
def test_a_rank_that_diverges_is_detected_at_the_next_save(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """A weight of the critic on rank 1 changes slightly after step 6; step 8 saves."""
    launch = warm.start(arguments(shards, tmp_path / "run"), failure=failure("spoil"))
    assert launch.status() == 1
    lines = [
        line for line in launch.log.read_text().splitlines() if "colortrain train: error" in line
    ]
    assert len(lines) == 1
    assert "step 8: the tensors of rank 1 on " in lines[0]
    assert "differ from those of the others, starting with critic." in lines[0]
    assert checkpoint_steps(tmp_path / "run") == [4]


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in parsed if line["kind"] == kind]


@pytest.mark.distributed
def test_ranks_that_round_differently_are_made_equal_if_requested(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The last bits of all tensors of rank 1 change after step 6; steps 8 and 12 save.

    At step 12 nothing differs any more, so optimizers and average were copied as well.
    """
    run = tmp_path / "run"
    argv = ["--set", "ema.half_life=20", "--set", "evaluate_every=100"]
    launch = warm.start(arguments(shards, run, *argv), failure=failure("drift"))
    assert launch.status() == 1
    output = launch.log.read_text()
    assert "step 8: the tensors of rank 1 on " in output
    assert re.search("GPUs of different models, .*: if ranks have such, add --resync", output)
    log = warm.run(
        arguments(shards, tmp_path / "again", *argv, "--resync"), failure=failure("drift")
    )
    assert "warning: step" not in log
    (start,), resyncs = (lines(tmp_path / "again", kind) for kind in ("start", "resync"))
    assert start["resync"] is True
    assert [line["step"] for line in resyncs] == [8]
    assert 0 < resyncs[0]["difference"] < 1e-5
    # the run that had ended resumes
    warm.run(arguments(shards, run, *argv, "--resync"))
    assert checkpoint_steps(run) == checkpoint_steps(tmp_path / "again") == [4, 8, 12]
    # where nothing differs, the option changes nothing
    warm.run(arguments(shards, tmp_path / "plain", *argv))
    assert tensors(run) == tensors(tmp_path / "plain")
    assert not lines(run, "resync")


@pytest.mark.distributed
def test_a_full_disk_is_one_line(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    launch = warm.start(arguments(shards, tmp_path / "run"), largest_file=20_000)
    assert launch.status() == 1
    output = launch.log.read_text()
    lines = [
        line
        for line in output.splitlines()
        if "error" in line and line.startswith("colortrain train")
    ]
    assert len(lines) == 1
    assert "File too large at " in lines[0]
    assert "\nTraceback" not in output
    assert not checkpoint_steps(tmp_path / "run")


def starts(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "start"]


@pytest.mark.distributed
def test_a_restart_by_the_launcher_changes_no_byte(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """One rank is killed after step 6; both resume from step 4."""
    warm.run(arguments(shards, tmp_path / "undisturbed"))
    warm.run(arguments(shards, tmp_path / "run"), failure=failure("kill"), max_restarts=1)
    assert starts(tmp_path / "run") == [0, 4]
    assert tensors(tmp_path / "run") == tensors(tmp_path / "undisturbed")


@pytest.mark.distributed
def test_accelerate_launch_restarts_a_killed_rank(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The same with `accelerate launch --max_restarts 1`; the test kills rank 1."""
    steps, run = 80, tmp_path / "run"
    line = command("launch.train", arguments(shards, run, steps=steps), processes=2)
    line[3:3] = ["--max_restarts", "1"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=log, stderr=log)
    deadline = time.monotonic() + 200
    while not checkpoint_folder(run, 4).is_dir() and time.monotonic() < deadline:
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if child.environ().get("RANK") == "1").kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "log").read_text()
    resumed = starts(run)
    assert resumed[0] == 0
    assert 4 <= resumed[1] < steps
    warm.run(arguments(shards, tmp_path / "undisturbed", steps=steps))
    assert tensors(run, steps) == tensors(tmp_path / "undisturbed", steps)
