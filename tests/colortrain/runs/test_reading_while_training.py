"""Reading a run while another process saves and deletes its checkpoints."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

import colortrain
from colortrain.metrics.evaluate import ScoringConfig, score_split
from colortrain.recipe import load_recipe
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.layout import checkpoint_folder
from colortrain.training.finetune import initial_weights
from shards.read.dataset import Split
from slurm.runs import read_progress
from tests.support.fast_saver import RECIPE, fill_weights, has_weights_of, saving
from tests.support.networks import assert_equal
from tests.support.processes import run_command
from tests.support.small_run import small_run
from tests.support.small_shard_set import small_set

_NUM_READS = 40
_NUM_STEPS = 5  # different checkpoints that must be read


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("runs") / "first"
    with saving(folder):
        yield folder


def _newest(run: Path) -> tuple[int, nn.Module]:
    network = colortrain.load(run)
    return network.description.step, network.generator


def _best(run: Path) -> tuple[int, nn.Module]:
    network = colortrain.load(run, checkpoint="best")
    return network.description.step, network.generator


def _generator(run: Path) -> tuple[int, nn.Module]:
    generator, _, step = load_generator(run)
    return step, generator


def _initial(run: Path) -> tuple[int, nn.Module]:
    weights, generator = initial_weights(run, RECIPE), RECIPE.generator.build()
    weights.load(generator, None)
    return weights.metadata["step"], generator


@pytest.mark.filterwarnings("error")  # a checkpoint that was deleted is not damaged
@pytest.mark.parametrize("read", [_newest, _best, _generator, _initial])
def test_every_reading_returns_one_whole_checkpoint(
    run: Path, read: Callable[[Path], tuple[int, nn.Module]]
) -> None:
    steps: list[int] = []
    until = time.monotonic() + 60  # a slow disk saves rarely
    while len(steps) < _NUM_READS or (len(set(steps)) < _NUM_STEPS and time.monotonic() < until):
        step, generator = read(run)
        assert has_weights_of(generator, step)
        steps.append(step)
    assert steps == sorted(steps)
    assert len(set(steps)) >= _NUM_STEPS  # checkpoints were deleted meanwhile


def test_the_status_is_read_while_checkpoints_are_deleted(run: Path) -> None:
    ages = [read_progress(run).checkpoint_age for _ in range(10 * _NUM_READS)]
    assert sum(age is not None for age in ages) > 9 * _NUM_READS


def test_initial_weights_stay_valid_when_their_checkpoint_is_deleted(tmp_path: Path) -> None:
    small_run(tmp_path / "old")
    recipe = load_recipe(checkpoint_folder(tmp_path / "old", 3) / "recipe.json")
    expected = load_generator(tmp_path / "old")[0].state_dict()
    weights = initial_weights(tmp_path / "old", recipe)
    shutil.rmtree(tmp_path / "old")
    generator, critic = recipe.build_networks()
    weights.load(generator, critic)
    assert_equal(generator.state_dict(), expected)


def test_all_ranks_score_the_same_checkpoint(run: Path, tmp_path: Path) -> None:
    """The ranks choose different checkpoints; the scores are those of one network."""
    small_set(tmp_path / "shards", count=8)
    split, scores = Split(tmp_path / "shards"), tmp_path / "scores.json"
    options = ["--shards", split.root, "--json", scores, "--dropout", "off"]
    done = run_command("launch.evaluate", ["--run", run, *options], processes=2)
    assert done.returncode == 0, done.stderr
    document, generator = json.loads(scores.read_text()), RECIPE.generator.build().eval()
    fill_weights(generator, document["step"])
    expected = score_split(generator, RECIPE.codec, split, "cpu", ScoringConfig(dropout=False))
    assert document["metrics"] == expected["metrics"]
