"""One process whose steps are timed; test_scaling.py starts two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from colortrain.distributed.setup import make_accelerator
from colortrain.recipe import save_recipe
from colortrain.recipes import get_recipe
from colortrain.scale_down import scaled_down
from launch.benchmark.training import scaling_worker
from launch.benchmark.training.scaling_worker import STRONG, WEAK, Rank
from launch.benchmark.training.setup import TrainingSetup
from tests.support.benchmark_setup import small_setup


def test_recipes_that_weight_colours_can_be_measured(shards: Path, tmp_path: Path) -> None:
    """Their losses need the histogram of the set's colours."""
    recipe = replace(scaled_down(get_recipe("flagship"), 32, 4), batch_size=4)
    rank = Rank(TrainingSetup(recipe, (str(shards),), tmp_path), make_accelerator())
    rank.take_steps(WEAK, 1)
    assert rank.step == 1


def test_one_process_has_the_whole_batch(shards: Path, tmp_path: Path) -> None:
    rank = Rank(small_setup(shards, tmp_path), make_accelerator())
    assert len(next(rank.batches[STRONG]).L) == len(next(rank.batches[WEAK]).L) == 4


def test_rates_are_written_for_each_requested_mode(shards: Path, tmp_path: Path) -> None:
    save_recipe(small_setup(shards, tmp_path).recipe, tmp_path / "recipe.json")
    request = {
        "recipe": str(tmp_path / "recipe.json"),
        "shards": [str(shards)],
        "scratch": str(tmp_path),
        "threads": 1,
        "modes": [STRONG, WEAK],
        "seconds": 0.02,
        "rounds": 2,
        "out": str(tmp_path / "rates.json"),
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    assert scaling_worker.main([str(tmp_path / "request.json")]) == 0
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert list(rates) == [STRONG, WEAK]
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
