"""A stop request during a long validation: no step is lost, all ranks leave soon."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from colortrain.runs.layout import checkpoint_folder, checkpoints_folder, journal_file
from tests.support.small_shard_set import small_set
from tests.support.warm_launcher import WarmLauncher

THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=2",
    "critic.base_channels=2",
    "batch_size=4",
]
INTERVALS = ["log_every=1", "evaluate_every=3", "checkpoint_every=4", "keep_checkpoints=9"]
RESULTS = ["keep_best=l1", "plateau.patience=1", "ema.half_life=20", "images=32"]
SECONDS = 1.5  # per chunk; of five chunks, two ranks have three and two


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of which 70 images are held out: five chunks of a validation."""
    return small_set(tmp_path_factory.mktemp("set"), count=140, splits=("train", "val"))


def arguments(shards: Path, run: Path) -> list[object]:
    sets = [text for change in [*THIN, *INTERVALS, *RESULTS] for text in ("--set", change)]
    argv = ["--recipe", "nampouri_unet", "--shards", shards, "--run", run, "--tracker", "none"]
    return [*argv, *sets]


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return a run's journal lines of one kind that are written completely."""
    path = journal_file(run)
    text = path.read_text() if path.exists() else ""
    parsed = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in parsed if line["kind"] == kind]


def scores(run: Path) -> list[tuple[int, Any]]:
    return [(line["step"], line["metrics"]) for line in lines(run, "validation")]


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_validation_is_left_within_seconds_and_repeated(
    warm: WarmLauncher, shards: Path, tmp_path: Path, processes: int
) -> None:
    """Only the last rank gets the signal.

    In the second start of two processes, rank 1 sees the checkpoint a second later than
    rank 0.
    """
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    warm.run(arguments(shards, undisturbed), processes)
    launch = warm.start(arguments(shards, run), processes, slow_scoring=SECONDS)
    assert launch.wait_until(lambda: len(lines(run, "train")) == 3)
    time.sleep(SECONDS / 3)  # now the validation of step 3 scores its first chunk
    ranks = launch.ranks() if processes > 1 else [launch.process()]
    ranks[-1].send_signal(signal.SIGTERM)
    assert launch.status() == (1 if processes > 1 else 75), launch.log.read_text()
    assert [line["step"] for line in lines(run, "stop")] == [3]
    assert not lines(run, "validation"), "all chunks were scored"
    assert checkpoint_folder(run, 3).is_dir()
    log = warm.run(arguments(shards, run), processes, late_rank=1)
    assert [line["step"] for line in lines(run, "start")] == [0, 3], log
    assert scores(run) == scores(undisturbed)
    assert [line["step"] for line in lines(run, "train")] == list(range(1, 9))
    files = [path for path in checkpoints_folder(undisturbed).rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert (run / path.relative_to(undisturbed)).read_bytes() == path.read_bytes(), path
