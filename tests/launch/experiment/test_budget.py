"""Budgets and plans: parsing, measuring a recipe's speed, and keeping a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml

from colortrain.recipes import get_recipe
from launch.experiment.budget import Budget, make_plan, parse_budget, seconds_per_image
from launch.experiment.options import Plan
from launch.experiment.prepare import prepare_recipe
from launch.experiment.sets import Sets
from launch.processes import training_launcher
from launch.reproduce import parse_options
from shards.errors import UserError
from tests.launch.reproduce.cifar import make_options
from tests.support.gpus import pretend_gpus
from tests.support.small_shard_set import small_set


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minutes:10", Budget("minutes", 10)),
        ("images:500", Budget("images", 500)),
        ("full", Budget("full")),
    ],
)
def test_budgets(text: str, expected: Budget) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["minutes", "images:0", "images:-3", "hours:2", "full:1"])
def test_invalid_budgets_are_rejected(text: str, tmp_path: Path) -> None:
    args = ["cifar10", "--source", str(tmp_path), "--out", str(tmp_path / "out"), "--budget", text]
    with pytest.raises(UserError, match="--budget: must be minutes:N, images:N or full"):
        parse_options(args)


def test_a_plan_is_kept_and_other_options_are_rejected(tmp_path: Path) -> None:
    sets, options = Sets(tmp_path, tmp_path), make_options(tmp_path)
    assert make_plan(options, Budget("images", 700), sets) == Plan(700, None, 7000)
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text().replace("7000", "123"))
    assert make_plan(options, Budget("images", 700), sets) == Plan(700, None, 123)
    with pytest.raises(UserError, match="was started with other options"):
        make_plan(options, Budget("images", 701), sets)


def test_minutes_become_images_of_every_recipe(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", count=4, splits=("train", "val"))
    sets = Sets(shards, shards)
    options = make_options(tmp_path, "flagship", "drouilhet_gan")
    plan = make_plan(options, Budget("minutes", 60), sets)
    assert plan.images
    assert plan.images > 16
    assert (plan.limit, plan.classifier_images) == (3000, 100_000)


def test_the_full_budget_is_that_of_the_table_or_of_each_recipe(tmp_path: Path) -> None:
    sets = Sets(tmp_path, tmp_path)
    for images in (10_000_000, None):
        options = make_options(tmp_path / str(images), full_images=images)
        plan = make_plan(options, Budget("full"), sets)
        assert plan == make_plan(options, Budget("full"), sets) == Plan(images, None, 100_000)
    recipe = prepare_recipe(options.networks[0], options, plan.images, 10)
    assert recipe.total_images(10) == 10 * get_recipe("flagship").epochs


def test_speed_is_measured_over_complete_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step is not counted; the last step of a cycle is the slowest."""
    options = make_options(Path(), "drouilhet_wgan_gp")
    recipe = prepare_recipe(options.networks[0], options, 100, 100)
    cycle, costs, clock = recipe.n_critic, [100.0], SimpleNamespace(now=0.0, waits=[])
    costs += 3 * [*(cycle - 1) * [0.3], 0.6]
    clock.monotonic = lambda: clock.now

    def step(*_: object) -> None:
        clock.now += costs.pop(0)

    budget = sys.modules[seconds_per_image.__module__]
    monkeypatch.setattr(budget, "time", clock)
    monkeypatch.setattr(budget, "train_step", step)
    monkeypatch.setattr(budget, "synchronize", lambda _: clock.waits.append(clock.now))
    assert cycle > 1
    measured = seconds_per_image(recipe)
    cycle_seconds = 0.3 * (cycle - 1) + 0.6
    cycles = (clock.now - 100) / cycle_seconds
    assert cycles == pytest.approx(round(cycles))
    assert measured == pytest.approx(cycle_seconds / (cycle * min(recipe.batch_size, 16)))
    assert clock.waits == [100, clock.now]  # the clock is read when the GPU has finished


@pytest.mark.parametrize(("gpus", "config"), [(1, "one_gpu.yaml"), (4, "ddp.yaml")])
def test_speed_is_measured_with_the_precision_of_the_training(
    gpus: int, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The precision does not depend on the number of GPUs."""
    pretend_gpus(monkeypatch, gpus)
    recipe = get_recipe("flagship")
    (path,) = [Path(arg) for arg in training_launcher(recipe) if arg.endswith(".yaml")]
    assert path.name == config
    make_accelerator = Mock(side_effect=InterruptedError)
    budget = sys.modules[seconds_per_image.__module__]
    monkeypatch.setattr(budget, "make_accelerator", make_accelerator)
    with pytest.raises(InterruptedError):
        seconds_per_image(recipe)
    precision = yaml.safe_load(path.read_text())["mixed_precision"]
    make_accelerator.assert_called_once_with(mixed_precision=precision)
    assert precision == "bf16"
