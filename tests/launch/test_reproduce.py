"""The tables: from budgets to plans, from a small CIFAR-10 to a table, made once, and going on after a start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from colortrain.metrics.registry import METRICS
from colortrain.models.classifier import Classifier
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import latest_checkpoint
from launch.reproduce import asked_of, table, train_worker
from launch.reproduce.budget import FULL, Budget, budget, make_plan, seconds_an_image
from launch.reproduce.datasets import SIZES, Sets
from launch.reproduce.entries import entries, finished_rows, starter, told
from launch.reproduce.feature_classifier import Judge, judge_for, labelled, load_judge, moved
from launch.reproduce.options import Asked, Plan
from shards.errors import UserError
from tests.support.photographs import random_crops
from tests.support.processes import ROOT, command, environment, run_command
from tests.support.small_shard_set import small_set


def small_cifar(folder: Path, count: int = 12) -> Path:
    """CIFAR-10's binary layout with `count` pictures in each of two batches; the first of each is grey."""
    folder.mkdir(parents=True)
    squares = list(random_crops(2 * count, side=32))
    for number, name in enumerate(("data_batch_1.bin", "test_batch.bin")):
        mine = [square.copy() for square in squares[number * count : (number + 1) * count]]
        mine[0][:] = mine[0][..., :1]
        records = [
            bytes([place % 10]) + square.transpose(2, 0, 1).tobytes()
            for place, square in enumerate(mine)
        ]
        (folder / name).write_bytes(b"".join(records))
    return folder


def asked(out: Path, **changes: object) -> Asked:
    words = {
        "table": "cifar10",
        "source": out,
        "out": out,
        "recipes": ("flagship",),
        "seeds": (0, 1),
    }
    return Asked(**{**words, "base_channels": 4, "limit": None, **changes})  # type: ignore[arg-type]


def words(source: Path, out: Path, *changes: object) -> list[object]:
    line = [
        "cifar10",
        "--source",
        source,
        "--out",
        out,
        "--budget",
        "images:240",
        "--base-channels",
        4,
        "--limit",
        5,
    ]
    return [*line, *(changes or ("--recipes", "flagship"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The source, the folder of a table of two networks, and what the command printed."""
    folder = tmp_path_factory.mktemp("reproduce")
    source = small_cifar(folder / "cifar-10-batches-bin")
    done = run_command(
        "launch.reproduce", words(source, folder / "out", "--recipes", "flagship", "nazeri_unet_l2")
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return source, folder / "out", done.stdout


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "table.json").read_text())["results"]
    return found


@pytest.mark.distributed
def test_one_command_makes_the_table(made: tuple[Path, Path, str]) -> None:
    _, out, printed = made
    text = (out / "table.md").read_text()
    assert text in printed
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")] == [
        "`nazeri_unet_l2`",
        "`flagship`",
    ]
    assert "of 11 (left out: 1 grey)" in text  # the grey picture of the training batch
    assert [row["samples"] for row in rows(out)] == [5, 5]
    assert all(row["metrics"]["fid"]["generated"] > 0 for row in rows(out))
    assert {"seconds", "peak_mb", "parameters", "commit"} <= set(rows(out)[0])
    assert "mixed precision no; peak MB of resident memory." in text
    with Image.open(out / "picture.png") as picture:
        assert picture.width > 4 * 32


@pytest.mark.distributed
def test_killed_in_the_middle_of_a_training_it_ends_with_the_same_figures(
    made: tuple[Path, Path, str], tmp_path: Path
) -> None:
    source, whole, _ = made
    killed = tmp_path / "killed"
    shutil.copytree(whole / "shards", killed / "shards")
    with subprocess.Popen(
        command("launch.reproduce", words(source, killed)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while latest_checkpoint(killed / "flagship-0") is None:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (killed / "flagship-0" / "cost.json").exists()
    again = run_command("launch.reproduce", words(source, killed))
    assert again.returncode == 0, again.stderr[-3000:]
    assert [row["metrics"] for row in rows(killed)] == [rows(whole)[1]["metrics"]]


@pytest.mark.distributed
def test_nothing_is_made_twice_and_a_table_grows(made: tuple[Path, Path, str]) -> None:
    source, out, _ = made
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    more = run_command(
        "launch.reproduce", words(source, out, "--recipes", "flagship", "--seeds", 0, 1)
    )
    assert more.returncode == 0, more.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert more.stderr.count("written to") + more.stdout.count("written to") == 1  # one evaluation
    assert [(row["recipe"], row["seed"]) for row in rows(out)] == [
        ("nazeri_unet_l2", 0),
        ("flagship", 0),
        ("flagship", 1),
    ]
    other = run_command("launch.reproduce", words(source, out, "--limit", 4))
    assert other.returncode == 2
    assert "begun with other words" in other.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minutes:10", Budget("minutes", 10)),
        ("images:500", Budget("images", 500)),
        ("full", Budget("full")),
    ],
)
def test_budgets(text: str, expected: Budget) -> None:
    assert budget(text) == expected


@pytest.mark.parametrize("text", ["minutes", "images:0", "images:-3", "hours:2", "full:1"])
def test_words_that_are_no_budget(text: str, tmp_path: Path) -> None:
    line = ["cifar10", "--source", str(tmp_path), "--out", str(tmp_path / "out"), "--budget", text]
    with pytest.raises((UserError, SystemExit)):
        assert asked_of(line)[1].kind == "full:1"


def test_seeds_and_photos_are_looked_at_before_any_work(tmp_path: Path) -> None:
    line = [
        "cifar10",
        "--source",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--budget",
        "full",
    ]
    with pytest.raises(UserError, match="must be a whole number of at least 0, got '-1'"):
        asked_of([*line, "--seeds", "0", "-1"])
    with pytest.raises(
        UserError, match=r"--seeds 9223372036854775808: give whole numbers below 2\^63"
    ):
        asked_of([*line, "--seeds", "0", str(2**63)])
    photos = small_set(tmp_path / "photos", size=64, count=4)
    with pytest.raises(UserError, match="holds 64 px, the networks are trained on 32"):
        asked_of([*line, "--photos", str(photos)])
    assert asked_of(["photos", *line[1:], "--photos", str(photos)])[2] == photos


def test_a_plan_is_kept_and_other_words_are_refused(tmp_path: Path) -> None:
    built = Sets(tmp_path, tmp_path, 32, labelled=True)
    assert make_plan(asked(tmp_path), Budget("images", 700), built) == Plan(700, None, 7000)
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text().replace("7000", "123"))
    assert make_plan(asked(tmp_path), Budget("images", 700), built) == Plan(700, None, 123)
    with pytest.raises(UserError, match="begun with other words"):
        make_plan(asked(tmp_path), Budget("images", 701), built)


def test_minutes_become_images_of_every_recipe(tmp_path: Path) -> None:
    built, words = (
        Sets(tmp_path, tmp_path, 32, labelled=True),
        asked(tmp_path, recipes=("flagship", "drouilhet_gan")),
    )
    plan = make_plan(words, Budget("minutes", 60), built)
    assert plan.images > 16
    assert (plan.limit, plan.judge_images) == (3000, 100_000)


def test_speed_is_measured_over_whole_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step warms up and does not count; the last of a turn costs the most, and belongs to it."""
    recipe = entries(asked(Path(), recipes=("drouilhet_wgan_gp",)), Plan(100, None, 1), 32)[
        0
    ].recipe
    cycle, costs, clock = recipe.n_critic, [100.0], SimpleNamespace(now=0.0, waits=[])
    costs += 3 * [*(cycle - 1) * [0.3], 0.6]
    clock.monotonic = lambda: clock.now

    def step(*_: object) -> None:
        clock.now += costs.pop(0)

    budgets = sys.modules[seconds_an_image.__module__]
    monkeypatch.setattr(budgets, "time", clock)
    monkeypatch.setattr(budgets, "train_step", step)
    monkeypatch.setattr(budgets, "wait_for", lambda _: clock.waits.append(clock.now))
    assert cycle > 1
    found = seconds_an_image(recipe)
    turns = (clock.now - 100) / (0.3 * (cycle - 1) + 0.6)
    assert turns == pytest.approx(round(turns))
    assert found == pytest.approx((0.3 * (cycle - 1) + 0.6) / (cycle * min(recipe.batch_size, 16)))
    assert clock.waits == [
        100,
        clock.now,
    ]  # a GPU's clock is read when it has done what it was asked for


def test_a_training_of_a_table_starts_without_a_word_of_its_own() -> None:
    line = [sys.executable, "-W", "error", "-m", "launch.reproduce.train_worker", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "launch.train" in done.stdout


@pytest.mark.parametrize(
    ("gpus", "config"), [(1, "one_gpu.yaml"), (2, "ddp.yaml"), (3, "one_gpu.yaml")]
)
def test_precision_does_not_follow_the_number_of_gpus(
    gpus: int, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    line = starter(get_recipe("nampouri_unet"))
    (path,) = [Path(word) for word in line if word.endswith(".yaml")]
    assert path.name == config
    asked_for = Mock(side_effect=InterruptedError)
    monkeypatch.setattr(sys.modules[seconds_an_image.__module__], "make_accelerator", asked_for)
    with pytest.raises(InterruptedError):
        seconds_an_image(
            get_recipe("nampouri_unet")
        )  # the budget is measured as the networks will train
    asked_for.assert_called_once_with(
        mixed_precision=yaml.safe_load(path.read_text())["mixed_precision"]
    )
    assert yaml.safe_load(path.read_text())["mixed_precision"] == "bf16"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two starts, and a `launch.train` that has nothing to do."""
    start = {"kind": "start", "mixed_precision": "no"}
    again = {**start, "mixed_precision": "bf16"}
    lines = [start, {"kind": "train", "seconds": 2}, again, {"kind": "train", "seconds": 3}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(train_worker.train, "main", lambda argv: 0)
    return tmp_path


def test_a_training_on_a_gpu_tells_its_memory(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = ["--recipe", "flagship", "--shards", "none", "--run", str(trained)]
    for rank, held in (
        ("1", 9_000_000),
        ("0", 7_000_000),
        ("0", 5_000_000),
    ):  # the last only loads what is at its end
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda held=held: held)
        assert train_worker.main(words) == 0
    expected = {
        "seconds": 5,
        "mixed_precision": ["bf16", "no"],
        "peak_mb": 7,
        "peak_of": "GPU memory",
    }
    assert told(trained) == expected


def test_memory_of_a_training_is_not_its_parents() -> None:
    """What the system adds up for a parent, ru_maxrss, begins with what the parent held."""
    held = np.ones(2**27)  # 1 GB
    line = [
        sys.executable,
        "-c",
        "from launch.reproduce.train_worker import peak; print(peak()['peak_mb'])",
    ]
    done = subprocess.run(
        line, capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    assert 100 < float(done.stdout) < 1000 < held.nbytes / 1e6


def test_nazeris_table_keeps_the_published_size_and_every_table_has_a_full_number(
    tmp_path: Path,
) -> None:
    words = asked(tmp_path, table="nazeri", recipes=("nazeri_gan",), base_channels=None)
    made = entries(words, Plan(FULL["nazeri"], None, 1), 32)
    assert [(entry.recipe.seed, entry.folder.name) for entry in made] == [
        (0, "nazeri_gan-0"),
        (1, "nazeri_gan-1"),
    ]
    recipe = made[0].recipe
    assert (recipe.generator.base_channels, recipe.batch_size) == (64, 128)
    assert recipe.total_images(1) == 200 * 50_000
    assert set(FULL) == set(SIZES)


def test_a_judge_learns_keeps_its_weights_and_refuses_others(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin")
    pictures, labels = labelled(source, "data_batch")
    assert pictures.shape == (12, 3, 32, 32)
    assert labels.tolist() == [place % 10 for place in range(12)]
    path = tmp_path / "judge.safetensors"
    judge = judge_for(source, path, 256)
    assert 0 <= judge.accuracy <= 1
    lab = torch.rand(3, 3, 32, 32) * 50
    assert np.array_equal(load_judge(path).features(lab), judge.features(lab))
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.raises(UserError, match="remove both"):
        load_judge(path)


def test_moved_pictures_keep_their_size() -> None:
    assert moved(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_a_curve_stands_below_the_table_and_only_where_there_is_one() -> None:
    at = {"images": 2560, "mae": 6.123, "accuracy_2": 10.04, "accuracy_5": 30.06}
    lines = table.curves([{"recipe": "nazeri_gan", "curve": [at]}, {"recipe": "flagship"}])
    assert lines[-1] == "| `nazeri_gan` | 2,560 | 6.12 | 10.0 | 30.1 |"
    assert table.curves([{"recipe": "flagship"}]) == []


def test_columns_are_metrics_that_there_are() -> None:
    assert set(table.HEADS) <= set(METRICS)


def test_rows_of_another_judge_are_named_and_left_out(tmp_path: Path) -> None:
    for name, digest in (("flagship-1", "new"), ("flagship-0", "new"), ("nazeri_gan-0", "old")):
        (tmp_path / name).mkdir()
        result = {"recipe": name[:-2], "seed": int(name[-1]), "metrics": {}}
        scores = {"asked": {"judge": digest}, "result": result}
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
        (tmp_path / name / "cost.json").write_text('{"seconds": 1}')
    judge = Judge(Classifier(), 0.5, "new", torch.device("cpu"))
    rows, others = finished_rows(tmp_path, judge)
    assert [(row["recipe"], row["seed"], row["seconds"]) for row in rows] == [
        ("flagship", 0, 1),
        ("flagship", 1, 1),
    ]
    assert others == ["nazeri_gan-0"]
    assert finished_rows(tmp_path, None) == ([], ["flagship-0", "flagship-1", "nazeri_gan-0"])


def test_networks_that_were_scored_by_fewer_metrics_have_empty_cells() -> None:
    def row(name: str, **figures: float) -> dict[str, Any]:
        metrics = {metric: {"generated": value, "grey": 9.0} for metric, value in figures.items()}
        return {
            "recipe": name,
            "seed": 0,
            "metrics": metrics,
            "seconds": 1,
            "peak_mb": 2,
            "parameters": 3,
        }

    facts = {
        "base_channels": 4,
        "left_out": {},
        "images": 1,
        "training_pictures": 1,
        "size": 32,
        "held_out_pictures": 1,
        "held_out": "val",
        "machine": {"gpus": [], "load_average": [1.0], "cpu": "c", "cores": 2, "date": "d"},
        "commit": None,
        "trained_at": [],
        "mixed_precision": [],
        "peak_of": [],
        "judge": "eyes",
        "another_judges": ["flagship-7"],
    }
    lines = table.markdown(
        "cifar10", [row("old", mae=1.0), row("new", mae=2.0, sepia=0.5)], facts
    ).splitlines()
    assert "| *grey* |  | 9.00 | 9.000 |  |  |  |" in lines
    assert "| `old` | 0 | **1.00** |  | 1 | 2 | 3 |" in lines
    assert "| `new` | 0 | 2.00 | **0.500** | 1 | 2 | 3 |" in lines
    assert lines[-1] == "Not in the table, for another judge scored them: flagship-7."


def test_the_best_of_a_column_is_the_highest_the_lowest_or_the_truths() -> None:
    def row(**figures: float) -> dict[str, Any]:
        return {
            "metrics": {name: {"generated": value, "truth": 0.7} for name, value in figures.items()}
        }

    rows = [row(psnr=21.0, mae=5.0, sepia=0.9), row(psnr=23.0, mae=6.0, sepia=0.6)]
    assert [table.closest(metric, rows) for metric in ("psnr", "mae", "sepia")] == [23.0, 5.0, 0.6]
    ratios = [
        {"metrics": {"colourfulness_ratio": {"generated": value}}} for value in (0.5, 1.2, 3.0)
    ]
    assert table.closest("colourfulness_ratio", ratios) == 1.2
