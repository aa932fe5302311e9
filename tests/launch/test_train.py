"""The `colortrain train` command: resolving options, --dry-run, and its exit statuses.

Training itself, in one and in several processes, is tested in tests/distributed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from colortrain.distributed.rank_failures import LostRanksError
from colortrain.recipe import save_recipe
from colortrain.recipes import get_recipe
from colortrain.runs.history import read_journal
from colortrain.runs.layout import EXIT_LOST_RANK, EXIT_STOPPED
from colortrain.training.cadence import Overhead
from launch import train
from launch.train import main, make_parser, overhead, resolve, run_training
from shards.errors import UserError
from tests.support.small_run import SETTINGS
from tests.support.small_shard_set import small_set


def arguments(*options: object) -> list[str]:
    return ["--recipe", "nampouri_unet", *map(str, options)]


def settings(*more: str) -> list[str]:
    return [arg for setting in (*SETTINGS, *more) for arg in ("--set", setting)]


def test_options_change_the_recipe(tmp_path: Path) -> None:
    args = ["--shards", "s", "--run", "r", *settings("batch_size=4")]
    recipe = resolve(make_parser().parse_args(arguments(*args, "--images", 100)))
    assert (recipe.size, recipe.batch_size, recipe.images) == (32, 4, 100)
    save_recipe(recipe, tmp_path / "recipe.json")
    again = ["--recipe", str(tmp_path / "recipe.json"), "--shards", "s", "--run", "r"]
    assert resolve(make_parser().parse_args(again)) == recipe
    longer = resolve(make_parser().parse_args([*again, "--epochs", "1.5"]))
    assert (longer.images, longer.epochs) == (None, 1.5)


def test_dry_run_prints_the_recipe_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_set(tmp_path / "set", count=8, splits=("train", "val"))
    args = arguments("--shards", shards, "--run", tmp_path / "run", *settings("batch_size=2"))
    assert main([*args, "--images", "10", "--dry-run"]) == 0
    captured = capsys.readouterr()
    printed = captured.out
    document = json.loads(printed[: printed.index("\ngenerator: ")])
    assert (document["size"], document["images"], document["fit"]) == (32, 10, "squash")
    assert captured.err.startswith(f"warning: {shards} was built with --fit crop, but the paper")
    assert captured.err.count("\n") == 1
    assert main([*args, "--images", "10", "--dry-run", "--set", "fit=none"]) == 0
    assert capsys.readouterr().err == ""
    assert ": 4 training samples, 4 held out (val)\n10 images, 5 steps, 2.50 epochs\n" in printed
    assert not (tmp_path / "run").exists()


def test_splits_are_chosen_and_a_run_resumes_only_with_the_same_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_set(tmp_path / "set", count=12, splits=("train2014", "val2014", "other"))
    run = tmp_path / "run"
    args = arguments("--shards", shards, "--run", run, *settings("batch_size=2"))
    with pytest.raises(UserError, match=r"--train-split`: train2014, val2014, other$"):
        main([*args, "--images", "4"])
    assert not run.exists()
    chosen = ["--train-split", "train2014", "--validation-split", "val2014"]
    args += ["--tracker", "none"]
    assert main([*args, *chosen, "--images", "4", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert (
        ":train=train2014:validation=val2014: 4 training samples, 4 held out (val2014)" in printed
    )
    assert main([*args, *chosen, "--images", "4"]) == 0
    assert read_journal(run, "validation")[0]["metrics"]["l1"]["generated"] > 0
    assert main([*args, *chosen, "--images", "6"]) == 0  # resumes
    others = [*chosen[:1], "other", *chosen[2:]], chosen[:2]
    for changed in others:
        with pytest.raises(UserError, match=r"was trained on dataset .*:train=train2014:validat"):
            main([*args, *changed, "--images", "8"])


@pytest.mark.parametrize(
    ("options", "validation", "saving"),
    [
        ([], 0.025, 0.025),
        (["--set", "evaluate_every=9"], 1, 0.025),
        (["--set", "checkpoint_every=9"], 0.025, 1),
        (["--set", "evaluate_every=9", "--overhead", "0.2"], 0.1, 0.1),
        (["--overhead", "1"], 1, 1),
    ],
)
def test_intervals_that_are_given_are_exact(
    options: list[str], validation: float, saving: float
) -> None:
    args = make_parser().parse_args(arguments("--shards", "s", "--run", "r", *options))
    limits = overhead(args)
    assert (limits.validation, limits.saving) == (validation, saving)


def test_intervals_of_a_file_are_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a named recipe are at most a tenth of the run, 5 of 50 steps."""
    shards = small_set(tmp_path / "set", count=8, splits=("train", "val"))
    rest = ["--shards", str(shards), "--run", str(tmp_path / "run"), *settings("batch_size=2")]
    rest += ["--images", "100", "--dry-run"]
    save_recipe(get_recipe("nampouri_unet"), tmp_path / "recipe.json")
    intervals = []
    for recipe in ("nampouri_unet", str(tmp_path / "recipe.json")):
        assert main(["--recipe", recipe, *rest]) == 0
        printed = capsys.readouterr().out
        document = json.loads(printed[: printed.index("\ngenerator: ")])
        intervals.append((document["evaluate_every"], document["checkpoint_every"]))
    assert intervals == [(5, 5), (500, 500)]
    args = make_parser().parse_args(["--recipe", str(tmp_path / "recipe.json"), *rest])
    assert overhead(args) == Overhead()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shards", "s", "--validation", "v"], "--validation are for --stream only"),
        (["--stream", "*.tar"], "--stream requires --epoch-images N"),
        (["--stream", "*.tar", "--train-split", "x"], "--train-split is for --shards only"),
        (["--stream", "*.tar", "--validation-split", "x"], "requires --validation"),
        (["--shards", "SET", "--train-split", "x"], "unknown split 'x'; .* train, val"),
        (["--shards", "SET", "--validation-split", "x"], "unknown split 'x'; .* train, val"),
        (["--shards", "SET", "--only", "generator"], "--only requires --init-from RUN"),
        (["--shards", "SET", "--corrupt-limit", "0"], "--corrupt-limit: must be above 0"),
        (["--shards", "SET", "--processes", "3"], "batch_size=2 does not divide"),
    ],
)
def test_inconsistent_options_are_errors_before_any_work(
    options: list[str], message: str, tmp_path: Path
) -> None:
    shards = small_set(tmp_path / "set", count=4, splits=("train", "val"))
    given = [str(shards) if option == "SET" else option for option in options]
    with pytest.raises(UserError, match=message):
        main(arguments(*given, "--run", tmp_path / "run", *settings("batch_size=2")))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_started_with_the_same_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def execv(path: str, argv: list[str]) -> None:
        raise InterruptedError(argv)

    monkeypatch.setattr(train.os, "execv", execv)
    with pytest.raises(InterruptedError) as raised:
        train.exec_processes(2, ["--recipe", "r", "--processes", "2"])
    command = raised.value.args[0]
    start = command.index("--num_processes")
    assert command[start : start + 4] == ["--num_processes", "2", "-m", "launch.train"]
    assert command[start + 4 :] == ["--recipe", "r", "--processes", "2", "--processes", "0"]
    args = ["--shards", "s", "--run", "r", "--processes", "2", "--processes", "0"]
    assert make_parser().parse_args(arguments(*args)).processes == 0


class FakeAccelerator:
    """As much of an accelerator as `run_training` uses in one process."""

    is_main_process = True
    num_processes = 1
    process_index = 0


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (True, 0, ""),
        (False, EXIT_STOPPED, "run: stopped by a signal, everything is saved; the same command"),
        (LostRanksError("rank 1 died"), EXIT_LOST_RANK, "colortrain train: error: rank 1 died"),
        (LostRanksError(""), EXIT_LOST_RANK, ""),
    ],
)
def test_exit_statuses(
    outcome: bool | LostRanksError,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class FakeTrainer:
        run = "run"

        def train(self) -> bool:
            if isinstance(outcome, LostRanksError):
                raise outcome
            return outcome

    make_trainer = cast(Any, FakeTrainer)
    assert run_training(make_trainer, cast(Any, FakeAccelerator()), 1800) == status
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == (1 if message else 0)


def test_memory_that_runs_out_is_one_line() -> None:
    def make() -> Any:
        torch.empty(2**58, dtype=torch.uint8)

    with pytest.raises(UserError, match=r"not enough memory for this recipe \(.*smaller") as raised:
        run_training(make, cast(Any, FakeAccelerator()), timeout=1800)
    assert "\n" not in str(raised.value)
