"""The warning about shards that were built with another --fit than the paper's."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from colortrain.data.tar_stream import StreamedTars
from colortrain.recipe import Recipe, override
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.image_fit import fit_warning
from shards.format.manifest import load_manifest, save_manifest
from shards.read.dataset import Split
from shards.read.mixture import open_training
from shards.sources.decode import FITS
from tests.support.small_shard_set import small_set


def set_with_fit(folder: Path, fit: str) -> Path:
    """Write a small shard set whose manifest has this fit."""
    small_set(folder, count=4)
    save_manifest(dataclasses.replace(load_manifest(folder), fit=fit), folder)
    return folder


def test_recipes_say_how_their_paper_makes_images_square() -> None:
    """Nampouri, Valentini and Arun resize; the other papers do not say."""
    fits = {name: get_recipe(name).fit for name in RECIPES}
    assert set(fits.values()) == {"squash", None}
    resizing = [name for name, fit in fits.items() if fit]
    assert {name.split("_")[0] for name in resizing} == {"nampouri", "valentini", "arun"}
    assert len(resizing) == 2 + 3 + 2


def test_the_field_takes_the_values_of_the_build_option() -> None:
    (literal, _) = typing.get_args(typing.get_type_hints(Recipe)["fit"])
    assert typing.get_args(literal) == FITS


@pytest.mark.parametrize("built", FITS)
@pytest.mark.parametrize("wanted", [*FITS, "none"])
def test_only_another_fit_is_warned_of(tmp_path: Path, built: str, wanted: str) -> None:
    recipe = override(get_recipe("nampouri_unet"), [f"fit={wanted}"])
    shards = set_with_fit(tmp_path / "shards", built)
    warning = fit_warning(recipe, Split(shards))
    if wanted in (built, "none"):
        assert warning is None
    else:
        assert warning is not None
        assert warning.startswith(f"warning: {shards} was built with --fit {built}, but the paper")
        assert f"build the shards with --fit {wanted}," in warning
        assert "\n" not in warning


def test_a_mixture_names_the_sets_that_differ(tmp_path: Path) -> None:
    one, two = (set_with_fit(tmp_path / fit, fit) for fit in ("crop", "squash"))
    warning = fit_warning(get_recipe("arun_wgan_gp"), open_training([f"{one}:1", f"{two}:1"]))
    assert warning is not None
    assert str(one) in warning
    assert str(two) not in warning


def test_streamed_tars_have_no_manifest() -> None:
    stream: Any = StreamedTars(("a.tar",), size=32, epoch_images=4)
    assert fit_warning(get_recipe("nampouri_unet"), stream) is None
