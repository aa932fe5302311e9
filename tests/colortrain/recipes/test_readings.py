"""The table of readings in docs/RECIPES.md: each of its settings changes a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from colortrain.distributed.setup import make_accelerator
from colortrain.recipe import Recipe, differences, override
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from tests.support.processes import ROOT
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set

_ROW = re.compile(r"^\| `(\w+)` \|.*`--set ([\w.]+=\w+)`", re.MULTILINE)


def readings() -> list[tuple[str, str]]:
    """Return the recipe and the setting of each row of the table."""
    text = (ROOT / "docs" / "RECIPES.md").read_text(encoding="utf-8")
    return _ROW.findall(text.partition("## Readings that the papers leave open")[2])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), count=8, splits=("train", "val"))


def test_the_table_has_readings_of_every_paper() -> None:
    papers = {get_recipe(name).paper for name, _ in readings()}
    assert papers == {get_recipe(name).paper for name in RECIPES} - {""}


@pytest.mark.parametrize(("name", "setting"), readings())
def test_each_reading_trains_and_differs(
    name: str, setting: str, shards: Path, tmp_path: Path
) -> None:
    """The generator's or the critic's weights after two steps are others."""
    published = get_recipe(name)
    override(published, [setting]).check()
    small = override(scaled(published, steps=2), ["objective.critic_from=0"])
    other = override(small, [setting])
    assert len(differences(small, other)) == 1
    assert weights(small, shards, tmp_path / "one") != weights(other, shards, tmp_path / "other")


def weights(recipe: Recipe, shards: Path, run: Path) -> list[float]:
    """Train a recipe and return the sum of each weight of its two networks."""
    trainer = Trainer(recipe, open_data(shards, recipe), run, make_accelerator())
    trainer.train()
    return [
        tensor.double().sum().item()
        for network in trainer.networks.values()
        for tensor in network.module.state_dict().values()
    ]
