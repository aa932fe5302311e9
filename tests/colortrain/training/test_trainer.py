"""The trainer: the average, learning rates, steps in which no network is due."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from colortrain.recipe import Recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.runs.history import read_journal
from colortrain.runs.layout import MANIFEST, checkpoint_folder, checkpoint_steps
from colortrain.training.train_metrics import WINDOW
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def make_trainer(shards: Path, run: Path, *changes: str) -> Trainer:
    recipe: Recipe = override(scaled(get_recipe("nampouri_unet"), steps=6), changes)
    return Trainer(recipe, open_data(shards, recipe), run, Accelerator(cpu=True))


def test_the_average_of_half_life_one_batch_halves_the_distance(
    shards: Path, tmp_path: Path
) -> None:
    """Its tensors keep no graph."""
    trainer = make_trainer(shards, tmp_path / "run", "ema.half_life=4")
    assert trainer.ema is not None
    expected = {name: tensor.clone() for name, tensor in trainer.ema.named_parameters()}
    batches = trainer.loader.batches()
    for _ in range(3):
        trainer.take_step(next(batches))
        for name, tensor in trainer.generator.module.named_parameters():
            expected[name] = (expected[name] + tensor.detach()) / 2
    batches.close()
    for name, tensor in trainer.ema.named_parameters():
        torch.testing.assert_close(tensor, expected[name])
        assert tensor.is_leaf
        assert not tensor.requires_grad


def test_learning_rates_follow_the_schedule(shards: Path, tmp_path: Path) -> None:
    """Eight training images in batches of four: an epoch is two steps."""
    trainer = make_trainer(shards, tmp_path / "run", "learning_rate=[[0, 1], [1, 0.5], [2, 0]]")
    lrs = []
    batches = trainer.loader.batches()
    for _ in range(6):
        trainer.take_step(next(batches))
        lrs.append(
            [network.optimizer.param_groups[0]["lr"] for network in trainer.networks.values()]
        )
    batches.close()
    assert lrs == [[2e-4] * 2] * 2 + [[1e-4] * 2] * 2 + [[0.0] * 2] * 2


def test_steps_without_an_update_log_nothing(shards: Path, tmp_path: Path) -> None:
    """The critic is not trained yet, and the generator is due every fifth step."""
    trainer = make_trainer(
        shards, tmp_path / "run", "n_critic=5", "objective.critic_from=100", "log_every=1"
    )
    assert trainer.critic is not None
    before = {name: tensor.clone() for name, tensor in trainer.critic.module.state_dict().items()}
    trainer.train()
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5]
    critic = dict(trainer.critic.module.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.items())


def logged(run: Path) -> list[dict[str, Any]]:
    """Return the values of each "train" line that do not depend on the time."""
    names = ("step", "losses", "gradient_norms", "skipped", "lr", "epoch")
    return [{name: line[name] for name in names} for line in read_journal(run, "train")]


def keep_until(run: Path, step: int) -> None:
    """Delete the checkpoints after a step: the run was killed before them."""
    for other in checkpoint_steps(run):
        if other > step:
            shutil.rmtree(checkpoint_folder(run, other))


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resumed_run_logs_the_lines_of_an_uninterrupted_one(
    shards: Path, tmp_path: Path, step: int
) -> None:
    """Lines are written every five steps, checkpoints every two.

    The critic is updated in each step, the generator in every third one.
    """
    changes = ["images=44", "log_every=5", "checkpoint_every=2", "keep_checkpoints=9"]
    changes += ["n_critic=3", "evaluate_every=100"]
    run = tmp_path / "run"
    make_trainer(shards, run, *changes).train()
    expected = logged(run)
    assert [line["step"] for line in expected] == [5, 10, 11]
    keep_until(run, step)
    trainer = make_trainer(shards, run, *changes)
    assert trainer.train()
    assert trainer.start_step == step
    assert logged(run) == expected


def test_a_checkpoint_without_a_window_is_resumed(shards: Path, tmp_path: Path) -> None:
    """Earlier versions did not save what was collected since the last line."""
    changes = ["images=20", "log_every=5", "checkpoint_every=2", "keep_checkpoints=9"]
    run = tmp_path / "run"
    make_trainer(shards, run, *changes).train()
    keep_until(run, 2)
    folder = checkpoint_folder(run, 2)
    (folder / f"{WINDOW}.safetensors").unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[f"{WINDOW}.safetensors"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    trainer = make_trainer(shards, run, *changes)
    assert trainer.train()
    assert (trainer.start_step, [line["step"] for line in logged(run)]) == (2, [5])
    assert not (checkpoint_folder(run, 5) / f"{WINDOW}.safetensors").exists()  # all is logged
