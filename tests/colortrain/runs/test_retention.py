"""Which checkpoints are kept, and how the best one is chosen, recorded and restored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from colortrain.runs.checkpoint import load_generator, load_state
from colortrain.runs.history import read_journal
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.runs.retention import (
    VALIDATION_METRICS,
    Best,
    better,
    candidate_best,
    prune,
    remove_temporaries,
    resumed_best,
    save_best,
    steps_to_keep,
)
from launch.evaluate import main as evaluate
from launch.train import main
from shards.errors import UserError, run_command
from tests.support.small_shard_set import small_set

FIELDS = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=2",
    "critic.base_channels=2",
    "batch_size=4",
    "images=32",
    "log_every=1",
    "checkpoint_every=2",
    "evaluate_every=4",
]


def train(shards: Path, run: Path, *changes: str, options: Sequence[str] = ()) -> int:
    options = ["--shards", str(shards), "--run", str(run), "--tracker", "none", *options]
    fields = [arg for change in [*FIELDS, *changes] for arg in ("--set", change)]
    return run_command("launch.train", main, ["--recipe", "nampouri_unet", *options, *fields])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


@pytest.mark.parametrize(
    ("steps", "now", "newest", "every", "best", "expected"),
    [
        ([2, 4, 6, 8], 8, 2, 0, None, {6, 8}),
        ([2, 4, 6, 8], 8, 1, 4, None, {4, 8}),
        ([2, 4, 6, 8], 8, 1, 0, 2, {2, 8}),
        ([0, 2, 4], 4, 1, 2, None, {2, 4}),  # step 0 of a fine-tuned run is not a multiple
        ([2, 4, 6, 8], 4, 1, 8, 6, {4}),  # 6 and 8 are damaged: the run fell back from them
        ([10], 10, 5, 0, 3, {10}),
    ],
)
def test_steps_to_keep(
    steps: list[int], now: int, newest: int, every: int, best: int | None, expected: set[int]
) -> None:
    assert steps_to_keep(steps, now, newest, every, best) == expected
    assert steps_to_keep(expected, now, newest, every, best) == expected  # idempotent


@pytest.mark.parametrize(
    ("metric", "old", "new", "improves"),
    [
        ("l1", 0.2, 0.1, True),
        ("l1", 0.1, 0.1, False),
        ("psnr", 20.0, 21.0, True),
        ("psnr", 21.0, 20.0, False),
        ("colourfulness_ratio", 0.5, 1.2, True),
        ("colourfulness_ratio", 1.2, 0.7, False),
        ("colourfulness", 10.0, 31.0, True),  # the truth is 30
        ("colourfulness", 31.0, 28.0, False),
        ("l1", 0.1, float("nan"), False),
        ("colourfulness_ratio", float("nan"), 3.0, False),  # NaN is never saved as the best
    ],
)
def test_better_follows_the_direction_of_the_metric(
    metric: str, old: float, new: float, improves: bool
) -> None:
    first, second = (
        candidate_best(metric, step, {metric: {"generated": value, "truth": 30.0, "grey": 0.0}})
        for step, value in ((1, old), (2, new))
    )
    assert better(second, first) == improves


def test_nan_is_not_better_than_nothing() -> None:
    assert not better(Best("l1", 1, float("nan"), float("nan")), None)
    assert better(Best("l1", 1, 0.5, 0.5), None)


def test_the_best_checkpoint_is_kept_and_found(shards: Path, tmp_path: Path) -> None:
    """The best by PSNR is kept next to the newest, also where no checkpoint was due.

    Both `load_generator` and `launch.evaluate` find it.
    """
    run = tmp_path / "run"
    changes = ["evaluate_every=1", "keep_best=psnr", "keep_checkpoints=1", "checkpoint_every=8"]
    assert train(shards, run, *changes) == 0
    scores = {
        line["step"]: line["metrics"]["psnr"]["generated"]
        for line in read_journal(run, "validation")
    }
    best = max(scores, key=lambda step: scores[step])
    assert checkpoint_steps(run) == sorted({best, 8})
    assert load_generator(run, step="best")[2] == best
    out = run.parent / "scores.json"
    argv = ["--run", str(run), "--shards", str(shards), "--checkpoint", "best", "--json", str(out)]
    assert run_command("launch.evaluate", evaluate, argv) == 0
    assert json.loads(out.read_text())["step"] == best
    document = json.loads((run / "checkpoints" / "best.json").read_text())
    assert (document["step"], document["value"]) == (best, scores[best])


def test_the_best_checkpoint_survives_a_resume(shards: Path, tmp_path: Path) -> None:
    """Step 1 stays the best by this metric, so the resumed run must remember it."""
    run = tmp_path / "run"
    changes = [
        "evaluate_every=1",
        "keep_best=colourfulness_ratio",
        "keep_checkpoints=1",
        "checkpoint_every=2",
    ]
    assert train(shards, run, *changes, "images=16") == 0
    before = json.loads((run / "checkpoints" / "best.json").read_text())
    (run / "checkpoints" / "best.json").unlink()  # killed between the checkpoint and this file
    assert train(shards, run, *changes, "images=16") == 0
    assert json.loads((run / "checkpoints" / "best.json").read_text()) == before
    assert train(shards, run, "images=24") == 0  # without keep_best
    with pytest.raises(UserError, match="has no best checkpoint: give --checkpoint STEP"):
        load_generator(run, step="best")


def test_a_best_checkpoint_that_is_deleted_or_of_another_metric_is_dropped(tmp_path: Path) -> None:
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
    ("change", "message"),
    [
        ("keep_best=l2", "unknown metric of keep_best 'l2'; valid, nearest first: l1"),
        ("keep_best=ssim", "unknown metric of keep_best 'ssim'"),  # too slow for a validation
        ("keep_every=3", "keep_every=3 is not a multiple of checkpoint_every=2"),
        ("keep_every=-2", "keep_every must be at least 0"),
    ],
)
def test_an_invalid_setting_is_a_one_line_error(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    assert train(shards, tmp_path / "run", change) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_every_valid_metric_is_measured_by_validation(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(shards, run, "images=16") == 0
    scores = read_journal(run, "validation")[0]["metrics"]
    assert set(VALIDATION_METRICS) == set(scores)
    assert all(isinstance(candidate_best(name, 1, scores), Best) for name in VALIDATION_METRICS)
    assert load_state(checkpoint_folder(run, 4))["best"] is None
    assert torch.is_tensor(next(load_generator(run)[0].parameters()))


@pytest.mark.parametrize("rule", ["keep_best=l1", "plateau.patience=2"])
def test_test_images_never_steer_a_run(
    rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_set(tmp_path / "set", size=32, count=16, splits=("train", "test"))
    run = tmp_path / "run"
    assert train(shards, run, rule) == 2
    error = capsys.readouterr().err
    assert f"{rule.split('.')[0].split('=')[0]} would steer the run by the test images" in error
    assert error.count("\n") == 1
    assert not run.exists()


def test_test_images_never_steer_a_run_that_chooses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = ("train", "val", "test2014")
    shards = small_set(tmp_path / "set", size=32, count=16, splits=splits)
    chosen = ["--validation-split", "test2014"]
    assert train(shards, tmp_path / "run", "keep_best=l1", options=chosen) == 2
    assert "would steer the run by the test images" in capsys.readouterr().err
    assert train(shards, tmp_path / "run", "images=8", options=chosen) == 0


def test_the_rates_fall_by_the_scores_of_a_validation_split(shards: Path, tmp_path: Path) -> None:
    """Rates of almost 0 change no score, so each later validation reduces them."""
    rule = ["plateau.patience=1", "plateau.factor=0.5", "evaluate_every=1", "log_every=1"]
    rates = ["generator_adam.lr=1e-30", "critic_adam.lr=1e-30"]
    assert train(shards, tmp_path / "run", *rule, *rates) == 0
    lines = read_journal(tmp_path / "run", "train")
    assert [line["lr"] for line in lines[:4]] == pytest.approx(
        [1e-30, 1e-30, 0.5e-30, 0.25e-30], rel=1e-6
    )


def test_temporary_files_of_killed_training_are_removed_and_those_of_other_commands_stay(
    tmp_path: Path,
) -> None:
    left = [
        "checkpoints/.best.json.node1.2354.tmp",
        "samples/.step-000000010.png.node1.2354.tmp",
        ".recipe.json.node1.2354.tmp",
        ".metrics.jsonl.node1.2354.tmp",
        ".trackers.json.node1.2354.tmp",
    ]
    others = [".evaluation.json.node2.99.tmp", "recipe.json", "checkpoints/best.json"]
    for name in (*left, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    assert {str(path.relative_to(tmp_path)) for path in files} == set(others)


def test_training_removes_them_when_it_starts(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=8, splits=("train", "val"))
    run = tmp_path / "run"
    temporary = run / "checkpoints" / ".best.json.node1.2354.tmp"
    args = ["--recipe", "nampouri_unet", "--shards", str(shards), "--run", str(run)]
    sets = [word for field in FIELDS for word in ("--set", field)]
    assert main([*args, *sets, "--tracker", "none"]) == 0
    temporary.touch()
    assert main([*args, *sets, "--tracker", "none"]) == 0  # nothing is left to train
    assert not temporary.exists()
