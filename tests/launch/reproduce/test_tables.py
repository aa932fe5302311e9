"""The tables of the papers: networks, sizes and changed fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from colortrain.recipes import RECIPES, get_recipe
from colortrain.scale_down import PretrainedWeights
from launch.experiment.options import ExperimentOptions
from launch.experiment.prepare import prepare_recipe
from launch.reproduce.tables import TABLES, select

PAPERS = ("nampouri", "nazeri", "nazeri-places", "arun", "drouilhet", "valentini")


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_networks_have_its_size_width_and_length(name: str) -> None:
    table = TABLES[name]
    options = ExperimentOptions(
        table=name,
        out=Path(),
        networks=table.networks,
        size=table.size,
        base_channels=table.base_channels,
        weights=PretrainedWeights("imagenet", "imagenet"),
    )
    for network in table.networks:
        published = get_recipe(network.recipe)
        recipe = prepare_recipe(network, options, table.full_images, 50_000)
        assert published.paper == name.partition("-")[0]
        assert (recipe.size, recipe.batch_size) == (published.size, published.batch_size)
        epochs = recipe.total_images(50_000) / 50_000
        assert epochs == published.epochs
        if not network.settings:
            assert (recipe.generator, recipe.critic) == (published.generator, published.critic)


def test_every_recipe_of_a_paper_is_in_its_tables() -> None:
    for recipe in map(get_recipe, RECIPES):
        if recipe.paper:
            tables = [name for name in PAPERS if name.startswith(recipe.paper)]
            rows = {network.recipe for name in tables for network in TABLES[name].networks}
            assert recipe.name in rows


def test_valentinis_table_has_every_depth_and_penalty() -> None:
    options = ExperimentOptions(table="valentini", out=Path(), networks=(), size=64)
    rows = {
        network.name: prepare_recipe(network, options, 16, 16)
        for network in TABLES["valentini"].networks
    }
    assert len(rows) == 11
    assert [rows[f"valentini_wgan-depth{n}"].generator.depth for n in (2, 3, 4)] == [2, 3, 4]  # type: ignore[union-attr]
    weights = {
        name: recipe.objective.penalties[0].weight.at(0)
        for name, recipe in rows.items()
        if recipe.objective.penalties
    }
    for network in ("valentini_wgan", "valentini_wgan_literal"):
        assert weights[f"{network}-penalty0"] == 0
        assert weights[f"{network}-penalty0.1"] == 0.1
    assert weights["valentini_wgan-depth4"] == weights["valentini_wgan_literal"] == 0.3


def test_recipes_select_networks_and_add_others() -> None:
    table = TABLES["valentini"]
    assert select(table, []) == table.networks
    chosen = select(table, ["valentini_wgan", "flagship"])
    assert [network.name for network in chosen] == [
        "valentini_wgan-depth2",
        "valentini_wgan-depth3",
        "valentini_wgan-depth4",
        "valentini_wgan-penalty0",
        "valentini_wgan-penalty0.1",
        "flagship",
    ]
