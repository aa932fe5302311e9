"""Benchmarks of training: the loop by hand computes what ours computes, each second counts once, rows are there."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import Resources
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe, override
from colortrain.recipes import RECIPES, get_recipe
from colortrain.training.profiling import NO_PROFILER
from colortrain.training.step import train_step
from launch.benchmark import main
from launch.benchmark.training import scaling
from launch.benchmark.training.costs import operations
from launch.benchmark.training.plain_loop import PlainLoop, is_writable
from launch.benchmark.training.scaling_worker import WEAK, Rank
from launch.benchmark.training.setup import Course
from launch.benchmark.training.step import as_convolutions
from launch.benchmark.training.time_shares import PARTS, Stopwatch, train_for
from launch.compare import prepare_recipe
from shards.errors import UserError
from tests.launch.benchmark.test_loading import check_agrees
from tests.support.small_shard_set import small_set
from tests.support.step_equivalence import make_batch

THIN = [
    "size=32",
    "generator.levels=4",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]
PENALISED = [
    "size=32",
    "generator.depth=2",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "n_critic=2",
]
QUICK = ["--seconds", "0.05", "--rounds", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16)


@pytest.fixture
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nampouri_unet", [*THIN, "generator.dropout=0"]),
        ("valentini_wgan", PENALISED),
        ("valentini_wgan_literal", PENALISED),
    ],
)
def test_the_loop_by_hand_computes_what_ours_computes(
    name: str, changes: list[str], float64: None
) -> None:
    recipe = override(get_recipe(name), changes)
    assert is_writable(recipe)
    accelerator, ends = Accelerator(cpu=True), []
    for by_hand in (False, True):
        torch.manual_seed(0)
        generator, critic = recipe.build_networks()
        assert critic is not None
        built = generator, critic
        if by_hand:
            loop = PlainLoop(recipe, *built, accelerator.device)
        networks = None if by_hand else make_networks(recipe, *built, accelerator, ComputeConfig())
        resources = Resources(accelerator.device, recipe.codec, lambda: np.zeros((23, 23)))
        measures = [term.build(resources) for term in recipe.objective.reconstruction]
        for step in range(4):
            batch = make_batch(2, step)
            loop.step(batch) if networks is None else train_step(
                *networks, recipe, measures, batch, step, 0.0
            )
        ends.append([value for module in built for value in module.state_dict().values()])
    for ours, plain in zip(*ends, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


def test_no_loop_is_claimed_for_other_objectives() -> None:
    """Rebalanced, perceptual and squared losses, clipped gradients, penalties at other points."""
    known = {name for name in RECIPES if is_writable(get_recipe(name))}
    assert known >= {
        "nampouri_unet",
        "nampouri_resnet18",
        "valentini_cgan",
        "valentini_wgan",
        "valentini_wgan_literal",
    }
    assert not known & {
        "drouilhet_gan",
        "drouilhet_wgan_gp",
        "drouilhet_progan",
        "arun_wgan_gp",
        "nazeri_unet_l2",
    }
    assert not is_writable(override(get_recipe("nampouri_unet"), ["critic_adam.clip=1"]))
    without_critic = ["critic=none", "objective.adversarial_weight=0"]
    assert not is_writable(override(get_recipe("nampouri_unet"), without_critic))


def test_each_second_belongs_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.accumulate([0, 1, 2, 4, 8, 16]).__next__)
    watch = Stopwatch(torch.device("cpu"))
    with watch.region("critic"), watch.region("generator"):
        pass
    watch.change()
    assert {part: seconds for part, seconds in watch.seconds.items() if seconds} == {
        "critic": 2 + 8,
        "generator": 4,
        "the rest": 1 + 16,
    }


def course(shards: Path, scratch: Path, *changes: str) -> Course:
    recipe: Recipe = override(get_recipe("nampouri_unet"), [*THIN, "log_every=2", *changes])
    return Course(recipe, (str(shards),), scratch)


def test_fractions_sum_to_one_and_no_profiler_stays(shards: Path, tmp_path: Path) -> None:
    trainer = course(shards, tmp_path).trainer("run")
    found = train_for(trainer, 1.0)
    assert set(found) == set(PARTS)
    assert sum(found.values()) == pytest.approx(1)
    assert found["critic"] > 0.05 < found["generator"]
    assert trainer.profiler is NO_PROFILER


def test_operations_of_one_convolution_are_twice_its_multiplications(
    shards: Path, tmp_path: Path
) -> None:
    """Once forward, once backward for the weights, none for the input; of two steps in a turn only one computes."""
    convolution, turns = torch.nn.Conv2d(1, 5, 3, padding=1), itertools.count()

    def take_step(batch: Batch) -> None:
        if next(turns) % 2:
            convolution(batch.L).sum().backward()

    trainer: Any = SimpleNamespace(recipe=SimpleNamespace(n_critic=2), take_step=take_step)
    batches = course(shards, tmp_path).batches()
    forward = 2 * convolution.weight.numel() * 32 * 32
    assert operations(trainer, batches) == 2 * forward / 2


def test_operations_of_an_image_are_the_same_in_any_batch(shards: Path, tmp_path: Path) -> None:
    on = course(shards, tmp_path, "batch_size=2")
    counted = operations(on.trainer("run"), on.batches())
    single = [Batch(batch.L[:1], batch.colour[:1], batch.mix[:1]) for batch in on.batches()]
    alone = operations(on.trainer("alone"), single)
    assert alone == pytest.approx(counted, rel=1e-6)


@pytest.mark.parametrize("convolutions", [True, False])
def test_on_a_gpu_products_are_computed_as_convolutions(
    convolutions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
    before = torch.backends.cuda.matmul.allow_tf32
    assert not before
    with as_convolutions(torch.device("cuda")):
        assert torch.backends.cuda.matmul.allow_tf32 == convolutions
    with as_convolutions(torch.device("cpu")):
        assert torch.backends.cuda.matmul.allow_tf32 == before
    assert torch.backends.cuda.matmul.allow_tf32 == before


def words(shards: Path, *more: str) -> list[str]:
    sets = [word for change in THIN for word in ("--set", change)]
    return ["--shards", str(shards), *sets, *QUICK, *more]


def test_step_prints_every_row_and_draws(shards: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "step.json", tmp_path / "step.png"
    assert main(["step", *words(shards, "--json", str(out), "--plot", str(plot))]) == 0
    document = json.loads(out.read_text())
    names = {row["name"] for row in document["rows"]}
    assert names >= {
        "plain PyTorch",
        "colortrain",
        "bf16",
        "channels_last",
        "recompute",
        "matrix product",
        *PARTS,
    }
    assert [goal["what"] for goal in document["goals"]] == [
        "time of a step over plain PyTorch",
        "waiting for data",
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_two_processes_are_set_beside_one(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    assert main(["scaling", *words(shards, "--rounds", "1", "--json", str(out))]) == 0
    document = json.loads(out.read_text())
    check_agrees(
        {**document, "rows": [row for row in document["rows"] if row["unit"] == "images/s"]}
    )
    rates = {row["name"]: row["value"] for row in document["rows"] if row["unit"] == "images/s"}
    (goal,) = document["goals"]
    assert goal["value"] == pytest.approx(
        50 * rates["2 processes, a whole batch each"] / rates["1 process"]
    )


def test_a_process_takes_steps_of_recipes_that_weigh_colours(shards: Path, tmp_path: Path) -> None:
    recipe = replace(prepare_recipe("flagship", 32, 4, 100), batch_size=4)
    rank = Rank(Course(recipe, (str(shards),), tmp_path), make_accelerator())
    rank.take(WEAK, 1)
    assert rank.step == 1


def test_what_a_process_says_is_one_line(tmp_path: Path) -> None:
    asked = argparse.Namespace(threads=1, seconds=0.1)
    on = Course(course(tmp_path, tmp_path).recipe, (str(tmp_path / "none"),), tmp_path)
    with pytest.raises(UserError) as raised:
        scaling.launched(on, 2, [WEAK], asked)
    assert str(raised.value).startswith(f"--ranks 2: no folder {tmp_path / 'none'}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("gpus", "counts"), [(0, [1, 2]), (1, [1]), (3, [1, 2]), (8, [1, 2, 4])])
def test_a_batch_is_shared_by_counts_that_divide_it(
    gpus: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert scaling.counts(4) == counts


def test_more_processes_than_gpus_are_refused(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--ranks 2: give a number from 1 to 1"):
        main(["scaling", *words(shards, "--ranks", "2")])
    with pytest.raises(UserError, match="batch_size=4 does not divide"):
        main(["scaling", *words(shards, "--ranks", "3")])


def test_saves_are_timed_beside_steps(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoint.json"
    assert main(["checkpoint", *words(shards, "--every", "50", "--json", str(out))]) == 0
    document = json.loads(out.read_text())
    values = {row["name"]: row for row in document["rows"]}
    stall, step = values["standing still for a save"]["low"], values["a step"]["high"]
    assert 0 < 100 * stall / (50 * step + stall) <= document["goals"][0]["high"]
    recipe = course(shards, tmp_path).recipe
    weights = sum(num_parameters(config.build()) for config in recipe.network_configs.values())
    assert (
        1 < values["both networks and their Adam"]["value"] / (3 * 4 * weights / 1e6) < 1.5
    )  # with two moments each


def test_mistakes_are_one_line(shards: Path) -> None:
    with pytest.raises(UserError, match="--seconds 0"):
        main(["step", *words(shards, "--seconds", "0")])
    with pytest.raises(UserError, match="batch_size=4 does not divide"):
        main(["scaling", *words(shards, "--ranks", "3")])
    with pytest.raises(UserError, match="holds 32 px samples"):
        main(["step", "--shards", str(shards)])
