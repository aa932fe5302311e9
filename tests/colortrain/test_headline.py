"""Reported scores: named after our metrics, and not part of a run's digest."""

from __future__ import annotations

import dataclasses

import pytest

from colortrain.headline import Headline, reported
from colortrain.metrics.registry import METRICS
from colortrain.recipe import differences, parse_recipe
from colortrain.recipes import RECIPES, get_recipe, headline_of
from colortrain.serialize import to_plain


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_a_paper_has_the_reported_scores(name: str) -> None:
    recipe = get_recipe(name)
    assert bool(recipe.headline.source) == bool(recipe.paper)
    assert set(recipe.headline.values()) <= set(METRICS)
    assert bool(recipe.headline.figures or recipe.headline.note) == bool(recipe.paper)


def test_one_line_has_source_figures_and_note() -> None:
    headline = reported("table 1", "no more", mae=5.1, accuracy_2=24.1)
    assert headline.text() == "table 1: MAE x 100, Lab 5.1, accuracy at 2 %, Lab, % 24.1; no more"
    assert headline.values() == {"mae": 5.1, "accuracy_2": 24.1}
    assert Headline().text() == ""


def test_runs_of_recipes_saved_without_it_are_the_same_runs() -> None:
    """A recipe.json without the field has the same digest and the same headline."""
    recipe = get_recipe("nazeri_gan")
    plain = to_plain(recipe)
    assert plain.pop("headline")["source"] == "table 1"
    old = parse_recipe(plain, "recipe.json")
    assert old.headline == Headline()
    assert (old.digest, differences(old, recipe)) == (recipe.digest, [])
    assert headline_of(old) == recipe.headline
    assert headline_of(dataclasses.replace(old, name="mine")) == Headline()
