"""One of two ranks dies, hangs, fails, drifts or cannot write: the run ends in time and says whose fault it was."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

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


def words(shards: Path, run: Path, *more: object, steps: int = STEPS) -> list[object]:
    changes = [
        *THIN,
        f"images={4 * steps}",
        "log_every=1",
        "checkpoint_every=4",
        "keep_checkpoints=9",
    ]
    sets = [word for change in changes for word in ("--set", change)]
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


def trouble(what: str, rank: int = 1) -> dict[str, object]:
    return {"rank": rank, "step": 6, "what": what}


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_is_named(
    warm: WarmLauncher, shards: Path, tmp_path: Path, rank: int
) -> None:
    launch = warm.start(words(shards, tmp_path / "run"), trouble=trouble("kill", rank))
    assert launch.status() == 1
    told = launch.log.read_text()
    assert "SIGKILL" in told  # the launcher's own summary
    assert f"rank {rank} (" in told.replace("rank      : ", "rank "), told
    assert checkpoint_steps(tmp_path / "run") in (
        [4],
        [4] if rank else [],
    )  # rank 0 may die while it writes


@pytest.mark.distributed
@pytest.mark.parametrize("what", ["stop", "hang"])
def test_a_hanging_rank_ends_the_others_within_the_timeout(
    warm: WarmLauncher, shards: Path, tmp_path: Path, what: str
) -> None:
    """The launcher gives a stopped rank thirty seconds more before it kills it; this test does not wait for that."""
    launch = warm.start(words(shards, tmp_path / "run", "--timeout", 5), trouble=trouble(what))
    assert launch.wait_until(lambda: "died or hangs" in launch.log.read_text())
    told = launch.log.read_text()
    launch.kill()
    lines = [line for line in told.splitlines() if "colortrain train: error" in line]
    assert len(lines) == 1
    assert "rank 1 (" in lines[0]
    assert "\nTraceback" not in told
    if what == "hang":  # a process that is not stopped can say where it stands
        assert re.search(r"rank 1 \(.*\) has taken no step for 7 s, it stands here:", told)
        assert "in _suffer" in told


@pytest.mark.slow
@pytest.mark.distributed
def test_a_hanging_rank_ends_the_launcher(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    launch = warm.start(words(shards, tmp_path / "run", "--timeout", 5), trouble=trouble("stop"))
    assert launch.status() == 1


@pytest.mark.distributed
def test_a_rank_that_fails_leaves_its_name_and_traceback(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    launch = warm.start(words(shards, tmp_path / "run"), trouble=trouble("raise"))
    assert launch.status() == 1
    told = launch.log.read_text()
    assert told.count("\nTraceback") == 1  # the launcher indents its own
    assert told[: told.index("\nTraceback")].splitlines()[-1].startswith("rank 1 (")
    assert "ZeroDivisionError: trouble" in told


@pytest.mark.distributed
def test_a_rank_that_drifts_is_caught_at_the_next_save(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The last bits of one weight of the critic differ on rank 1 after step 6, which step 8 would have saved."""
    launch = warm.start(words(shards, tmp_path / "run"), trouble=trouble("spoil"))
    assert launch.status() == 1
    lines = [
        line for line in launch.log.read_text().splitlines() if "colortrain train: error" in line
    ]
    assert len(lines) == 1
    assert "step 8: rank 1 on " in lines[0]
    assert "no longer holds what the others hold, from critic." in lines[0]
    assert checkpoint_steps(tmp_path / "run") == [4]


@pytest.mark.distributed
def test_a_full_disk_is_one_line(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    launch = warm.start(words(shards, tmp_path / "run"), largest_file=20_000)
    assert launch.status() == 1
    told = launch.log.read_text()
    lines = [
        line
        for line in told.splitlines()
        if "error" in line and line.startswith("colortrain train")
    ]
    assert len(lines) == 1
    assert "File too large at " in lines[0]
    assert "\nTraceback" not in told
    assert not checkpoint_steps(tmp_path / "run")


def starts(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "start"]


@pytest.mark.distributed
def test_the_launcher_restarts_by_itself_and_no_byte_changes(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """One rank is killed after step 6; both go on from step 4."""
    warm.run(words(shards, tmp_path / "undisturbed"))
    warm.run(words(shards, tmp_path / "run"), trouble=trouble("kill"), max_restarts=1)
    assert starts(tmp_path / "run") == [0, 4]
    assert tensors(tmp_path / "run") == tensors(tmp_path / "undisturbed")


@pytest.mark.distributed
def test_accelerate_launch_restarts_by_itself(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The same through `accelerate launch --max_restarts 1`, its rank 1 killed from outside."""
    steps, run = 80, tmp_path / "run"
    line = command("launch.train", words(shards, run, steps=steps), processes=2)
    line[3:3] = ["--max_restarts", "1"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=log, stderr=log)
    deadline = time.monotonic() + 200
    while not checkpoint_folder(run, 4).is_dir() and time.monotonic() < deadline:
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if child.environ().get("RANK") == "1").kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "log").read_text()
    begun = starts(run)
    assert begun[0] == 0
    assert 4 <= begun[1] < steps
    warm.run(words(shards, tmp_path / "undisturbed", steps=steps))
    assert tensors(run, steps) == tensors(tmp_path / "undisturbed", steps)
