"""Which checkpoints stay: the newest, some along the way, the best; and how the best is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from colortrain.runs.checkpoint import load_generator, load_state
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.runs.retention import (
    CHOICES,
    Best,
    better,
    contender,
    kept,
    prune,
    resumed_best,
    save_best,
)
from launch.evaluate import main as evaluate
from launch.train import main
from shards.errors import UserError, run_command
from tests.colortrain.training.test_checkpoint_writer import arguments as words
from tests.colortrain.training.test_checkpoint_writer import lines
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


@pytest.mark.parametrize(
    ("steps", "now", "newest", "every", "best", "stay"),
    [
        ([2, 4, 6, 8], 8, 2, 0, None, {6, 8}),
        ([2, 4, 6, 8], 8, 1, 4, None, {4, 8}),
        ([2, 4, 6, 8], 8, 1, 0, 2, {2, 8}),
        ([0, 2, 4], 4, 1, 2, None, {2, 4}),  # the beginning of a fine-tuned run is no multiple
        ([2, 4, 6, 8], 4, 1, 8, 6, {4}),  # 6 and 8 are damaged: the run fell back over them
        ([10], 10, 5, 0, 3, {10}),
    ],
)
def test_what_stays(
    steps: list[int], now: int, newest: int, every: int, best: int | None, stay: set[int]
) -> None:
    assert kept(steps, now, newest, every, best) == stay
    assert kept(stay, now, newest, every, best) == stay  # once more changes nothing


@pytest.mark.parametrize(
    ("metric", "old", "new", "improves"),
    [
        ("l1", 0.2, 0.1, True),
        ("l1", 0.1, 0.1, False),
        ("psnr", 20.0, 21.0, True),
        ("psnr", 21.0, 20.0, False),
        ("colourfulness_ratio", 0.5, 1.2, True),
        ("colourfulness_ratio", 1.2, 0.7, False),
        ("colourfulness", 10.0, 31.0, True),  # of 30 in truth
        ("colourfulness", 31.0, 28.0, False),
        ("l1", 0.1, float("nan"), False),
        (
            "colourfulness_ratio",
            float("nan"),
            3.0,
            False,
        ),  # a NaN never was the best: see the next test
    ],
)
def test_better_is_what_the_table_of_scores_says(
    metric: str, old: float, new: float, improves: bool
) -> None:
    first, second = (
        contender(metric, step, {metric: {"generated": value, "truth": 30.0, "grey": 0.0}})
        for step, value in ((1, old), (2, new))
    )
    assert better(second, first) == improves


def test_a_nan_is_not_even_the_first_best() -> None:
    assert not better(Best("l1", 1, float("nan"), float("nan")), None)
    assert better(Best("l1", 1, 0.5, 0.5), None)


def test_the_best_stays_and_is_found(shards: Path, tmp_path: Path) -> None:
    """One checkpoint is kept, but the best by PSNR stays too, also where none was due; each door finds it as best."""
    run = tmp_path / "run"
    asked = words(
        shards,
        run,
        "evaluate_every=1",
        "keep_best=psnr",
        "keep_checkpoints=1",
        "checkpoint_every=8",
    )
    assert run_command("launch.train", main, asked) == 0
    scores = {
        line["step"]: line["metrics"]["psnr"]["generated"] for line in lines(run, "validation")
    }
    best = max(scores, key=lambda step: scores[step])
    assert checkpoint_steps(run) == sorted({best, 8})
    assert load_generator(run, step="best")[2] == best
    scored = run.parent / "scores.json"
    asked = [
        "--run",
        str(run),
        "--shards",
        str(shards),
        "--checkpoint",
        "best",
        "--json",
        str(scored),
    ]
    assert run_command("launch.evaluate", evaluate, asked) == 0
    assert json.loads(scored.read_text())["step"] == best
    document = json.loads((run / "checkpoints" / "best.json").read_text())
    assert (document["step"], document["value"]) == (best, scores[best])


def test_the_best_survives_a_resume(shards: Path, tmp_path: Path) -> None:
    """As good as nothing beats step 1, which a longer run must remember."""
    run = tmp_path / "run"
    changes = [
        "evaluate_every=1",
        "keep_best=colourfulness_ratio",
        "keep_checkpoints=1",
        "checkpoint_every=2",
    ]
    assert run_command("launch.train", main, words(shards, run, *changes, "images=16")) == 0
    before = json.loads((run / "checkpoints" / "best.json").read_text())
    (run / "checkpoints" / "best.json").unlink()  # killed between the checkpoint and this file
    assert run_command("launch.train", main, words(shards, run, *changes, "images=16")) == 0
    assert json.loads((run / "checkpoints" / "best.json").read_text()) == before
    assert (
        run_command("launch.train", main, words(shards, run, "images=24")) == 0
    )  # no keep_best any more
    with pytest.raises(UserError, match="has no best checkpoint: train it with --set keep_best=l1"):
        load_generator(run, step="best")


def test_a_best_that_is_gone_or_of_another_metric_is_forgotten(tmp_path: Path) -> None:
    state: dict[str, Any] = {"metric": "l1", "step": 4, "value": 0.1, "distance": 0.1}
    assert resumed_best(tmp_path, "l1", state) is None
    checkpoint_folder(tmp_path, 4).mkdir(parents=True)
    assert resumed_best(tmp_path, "l1", state) == Best("l1", 4, 0.1, 0.1)
    assert resumed_best(tmp_path, "psnr", state) is None
    assert resumed_best(tmp_path, "l1", None) is None
    save_best(tmp_path, None)
    assert not (tmp_path / "checkpoints" / "best.json").exists()


def test_a_kill_while_deleting_leaves_no_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)

    def killed(path: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, 2, newest=1)
    assert checkpoint_steps(tmp_path) == [2]
    monkeypatch.undo()
    prune(tmp_path, 2, newest=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000002"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("keep_best=l2", "unknown metric of keep_best 'l2'; valid, nearest first: l1"),
        (
            "keep_best=ssim",
            "unknown metric of keep_best 'ssim'",
        ),  # too slow to be scored along a training
        ("keep_every=3", "keep_every=3 is no multiple of checkpoint_every=2"),
        ("keep_every=-2", "keep_every must be at least 0"),
    ],
)
def test_a_wish_that_cannot_come_true_is_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    assert run_command("launch.train", main, words(shards, tmp_path / "run", change)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_every_metric_offered_is_scored(shards: Path, tmp_path: Path) -> None:
    assert run_command("launch.train", main, words(shards, tmp_path / "run", "images=16")) == 0
    scored = lines(tmp_path / "run", "validation")[0]["metrics"]
    assert set(CHOICES) == set(scored)
    assert all(isinstance(contender(name, 1, scored), Best) for name in CHOICES)
    assert load_state(checkpoint_folder(tmp_path / "run", 4))["best"] is None
    assert torch.is_tensor(next(load_generator(tmp_path / "run")[0].parameters()))
