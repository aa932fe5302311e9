"""Kill the launcher and both ranks at random times, again and again.

The run ends with the same bytes as an undisturbed one.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from colortrain.runs.checkpoint import is_intact
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from tests.support.warm_launcher import Launch, WarmLauncher

# seconds per call of fsync, a dozen per save: otherwise half of the kills would miss
# the saves
SLOW_DISK = 0.01
THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]
INTERVALS = [
    "log_every=2",  # the lines of odd checkpoints are incomplete
    "checkpoint_every=3",
    "evaluate_every=10",
    "keep_checkpoints=2",
    "keep_every=30",
    "keep_best=l1",
]


def arguments(shards: Path, run: Path, steps: int) -> list[object]:
    changes = [*THIN, *INTERVALS, f"images={4 * steps}", "ema.half_life=20", "plateau.patience=2"]
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
    ]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    try:
        text = (run / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def trained(run: Path, starts: int) -> int:
    """Return the number of lines logged since the latest start, if it is a new one.

    `starts` is the number of starts before it.
    """
    kinds = [line["kind"] for line in read_metrics(run)]
    return kinds[::-1].index("start") if kinds.count("start") > starts else 0


def unfinished(run: Path) -> set[str]:
    """Return the folders of saves that are running or were interrupted."""
    return {path.name for path in (run / "checkpoints").glob("step-*.tmp-*")}


def wait_for_kill_time(launch: Launch, run: Path, draw: random.Random, kind: str) -> bool:
    """Wait during start-up, for some steps, or for one of the next saves.

    Return False if the launcher ended before.
    """
    starts, old = [line["kind"] for line in read_metrics(run)].count("start"), unfinished(run)
    if kind == "start":
        until = time.monotonic() + draw.uniform(0, 1.5)
        return launch.wait_until(lambda: time.monotonic() > until or trained(run, starts))
    if kind == "steps":
        some = draw.randint(1, 4)
        alive = launch.wait_until(lambda: trained(run, starts) >= some)
        time.sleep(draw.uniform(0, 0.03))
        return alive
    saves, seen = draw.randint(1, 3), set(old)

    def look() -> bool:
        seen.update(unfinished(run))
        return len(seen) >= saves + len(old)

    alive = launch.wait_until(look)
    time.sleep(draw.uniform(0, 10 * SLOW_DISK))
    return alive


def kill_often(warm: WarmLauncher, argv: list[object], run: Path, kills: int) -> int:
    """Start and kill `kills` times; return how many kills hit a save."""
    draw, in_saves = random.Random(kills), 0
    for number in range(kills):
        launch = warm.start(argv, slow_fsync=SLOW_DISK)
        before = unfinished(run)
        kind = ("start", "steps", "save")[number % 3]
        assert wait_for_kill_time(launch, run, draw, kind), (
            f"ended before kill {number}: {launch.log.read_text()}"
        )
        launch.kill()
        in_saves += bool(unfinished(run) - before)
        assert all(is_intact(checkpoint_folder(run, step)) for step in checkpoint_steps(run)), (
            f"kill {number}"
        )
    return in_saves


def checkpoint_bytes(run: Path) -> dict[str, bytes]:
    """Return the bytes of all files of the checkpoints, best.json included."""
    paths = [path for path in (run / "checkpoints").rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def logged(run: Path, kind: str) -> list[tuple[int, Any]]:
    return [
        (line["step"], [line.get(name) for name in ("losses", "gradient_norms", "metrics")])
        for line in read_metrics(run)
        if line["kind"] == kind
    ]


def check_kills(warm: WarmLauncher, shards: Path, folder: Path, kills: int, steps: int) -> None:
    started = time.monotonic()
    warm.run(arguments(shards, folder / "undisturbed", steps))
    run = folder / "killed"
    in_saves = kill_often(warm, arguments(shards, run, steps), run, kills)
    warm.run(arguments(shards, run, steps))
    resumed_at = [line["step"] for line in read_metrics(run) if line["kind"] == "start"]
    minutes = (time.monotonic() - started) / 60
    print(
        f"{kills} kills, {in_saves} in saves, resumed at {sorted(set(resumed_at))}, "
        f"{minutes:.1f} minutes"
    )
    assert checkpoint_bytes(run) == checkpoint_bytes(folder / "undisturbed")
    assert [step for step, _ in logged(run, "train")] == list(
        range(2, steps + 1, 2)
    )  # none lost, none logged twice
    for kind in ("train", "validation"):
        assert logged(run, kind) == logged(folder / "undisturbed", kind)
    assert in_saves >= kills // 8
    assert len(set(resumed_at)) >= kills // 4  # it resumed at different steps


@pytest.mark.distributed
@pytest.mark.timeout(900)
def test_thirty_kills_change_no_byte(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    check_kills(warm, shards, tmp_path, kills=30, steps=150)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(3600)
def test_a_hundred_kills_change_no_byte(warm: WarmLauncher, shards: Path, tmp_path: Path) -> None:
    check_kills(warm, shards, tmp_path, kills=100, steps=500)
