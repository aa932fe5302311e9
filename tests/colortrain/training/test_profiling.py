"""The profiling hook of a training step: which regions it reports, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from colortrain.recipe import override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.profiling import NO_PROFILER
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


class Recorder:
    """Records the start and the end of every region."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        self.events.append(name)
        yield
        self.events.append(f"/{name}")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16)


def make_trainer(shards: Path, run: Path) -> Trainer:
    recipe = override(
        scaled(get_recipe("nampouri_unet"), steps=6), ["n_critic=2", "ema.half_life=4"]
    )
    return Trainer(recipe, open_data(shards, recipe), run, Accelerator(cpu=True))


def test_regions_follow_the_order_of_the_step(shards: Path, tmp_path: Path) -> None:
    """With n_critic=2 the second step updates the generator, after one forward pass."""
    trainer = make_trainer(shards, tmp_path / "run")
    batches = trainer.loader.batches()
    found = []
    for _ in range(2):
        trainer.profiler = recorder = Recorder()
        trainer.take_step(next(batches))
        found.append(recorder.events)
    batches.close()
    critic = ["critic", "generator", "/generator", "/critic"]
    generator = ["generator", "/generator"]
    end = ["average", "/average", "logging", "/logging"]
    assert found[0] == [*critic, *end]
    assert found[1] == [*generator, "critic", "/critic", *generator, *end]


def test_a_profiler_changes_no_weight(shards: Path, tmp_path: Path) -> None:
    weights = []
    for profiler in (NO_PROFILER, Recorder()):
        trainer = make_trainer(shards, tmp_path / type(profiler).__name__)
        trainer.profiler = profiler
        batches = trainer.loader.batches()
        for _ in range(3):
            trainer.take_step(next(batches))
        batches.close()
        weights.append(trainer.generator.module.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
