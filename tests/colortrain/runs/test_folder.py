"""Opening a run's data, and refusing folders and checkpoints of another run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from colortrain.recipe import Recipe, override, save_recipe
from colortrain.recipes import get_recipe
from colortrain.runs.folder import (
    check_checkpoint,
    check_run_folder,
    open_data,
    open_streamed,
)
from colortrain.runs.layout import recipe_file
from shards.errors import UserError
from shards.read.dataset import Split
from shards.read.order import ORDER_VERSION
from tests.support.small_shard_set import small_set

RECIPE: Recipe = override(get_recipe("nampouri_unet"), ["size=32", "generator.levels=3"])
STATE = {"dataset_id": "abc", "order": ORDER_VERSION}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=15, splits=("train", "val"))


def test_open_data_returns_both_splits_and_rounds_the_limit_up(shards: Path) -> None:
    data = open_data(shards, RECIPE, workers=3, corrupt_limit=0.15)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), data.validation.name) == (8, 7, "val")
    assert (data.workers, data.max_damaged) == (3, 2)  # 0.15 * 8 = 1.2
    assert open_data(shards, RECIPE).max_damaged == 0


def test_a_mixture_validates_on_its_first_set(shards: Path, tmp_path: Path) -> None:
    other = small_set(tmp_path / "other", size=32, count=6)
    data = open_data([f"{shards}:0.5", f"{other}:0.5"], RECIPE)
    assert len(data.train) == 14
    assert data.validation is not None
    assert data.validation.root == open_data(shards, RECIPE).validation.root  # type: ignore[union-attr]
    assert open_data(str(other), RECIPE).validation is None


def names(shards: Path, **splits: Any) -> tuple[str, str | None, str]:
    """Return the names of the opened splits, and what the id says about them."""
    data = open_data(shards, RECIPE, **splits)
    assert isinstance(data.train, Split)
    validation = data.validation.name if data.validation is not None else None
    assert data.dataset_id.startswith(data.train.dataset_id)
    return data.train.name, validation, data.dataset_id.removeprefix(data.train.dataset_id)


def test_validation_is_never_on_the_training_split_unless_it_is_chosen(tmp_path: Path) -> None:
    both = small_set(tmp_path / "both", size=32, count=6, splits=("val", "test"))
    assert names(both, train_split="val") == ("val", "test", ":train=val")
    assert names(both, train_split="test") == ("test", "val", ":train=test")
    chosen = names(both, train_split="val", validation_split="val")
    assert chosen == ("val", "val", ":train=val:validation=val")
    for name in ("val", "test"):
        only = small_set(tmp_path / name, size=32, count=3, splits=(name,))
        assert names(only, train_split=name) == (name, None, "")
        with pytest.raises(UserError, match=f"no split 'train': .*--train-split`: {name}"):
            open_data(only, RECIPE)


def test_default_splits_leave_the_dataset_id_as_it_was(shards: Path, tmp_path: Path) -> None:
    assert names(shards) == ("train", "val", "")
    assert names(shards, train_split="train", validation_split="val") == ("train", "val", "")
    assert names(shards, validation_split="train") == ("train", "train", ":validation=train")
    assert names(small_set(tmp_path, size=32, count=3), train_split="all") == ("all", None, "")


def test_mixture_is_of_the_chosen_split_of_each_set(shards: Path, tmp_path: Path) -> None:
    other = small_set(tmp_path / "other", size=32, count=9, splits=("train", "val"))
    data = open_data([f"{shards}:0.5", f"{other}:0.5"], RECIPE, train_split="val")
    assert len(data.train) == 7 + 4
    assert data.dataset_id == f"{data.train.dataset_id}:train=val"
    single = small_set(tmp_path / "single", size=32, count=9)
    with pytest.raises(UserError, match=r"single: unknown split 'val'"):
        open_data([str(shards), str(single)], RECIPE, train_split="val")


def test_shards_of_another_size_are_refused(shards: Path) -> None:
    recipe = override(RECIPE, ["size=64"])
    with pytest.raises(
        UserError, match=r"contains 32 px samples, recipe nampouri_unet requires 64 px"
    ):
        open_data(shards, recipe)


def test_streamed_tars_have_the_nominal_length(shards: Path) -> None:
    data = open_streamed(
        str(shards / "train" / "*.tar"), RECIPE, epoch_images=11, corrupt_limit=0.1
    )
    assert (len(data.train), data.max_damaged, data.validation) == (11, 2, None)


def test_new_empty_and_interrupted_folders_are_accepted(tmp_path: Path) -> None:
    check_run_folder(tmp_path / "new", RECIPE)
    check_run_folder(tmp_path, RECIPE)
    (tmp_path / ".lock").touch()
    (tmp_path / ".recipe.json.node.1.tmp").touch()
    check_run_folder(tmp_path, RECIPE)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty and contains no run"):
        check_run_folder(tmp_path, RECIPE)


def test_a_folder_accepts_the_same_recipe_with_another_length(tmp_path: Path) -> None:
    save_recipe(RECIPE, recipe_file(tmp_path))
    check_run_folder(tmp_path, override(RECIPE, ["images=9", "log_every=3"]))
    with pytest.raises(UserError, match=r"another recipe \(flip: 0.5 -> 0.25\)"):
        check_run_folder(tmp_path, override(RECIPE, ["flip=0.25"]))
    with pytest.raises(UserError, match="is a file: give a folder as --run"):
        check_run_folder(recipe_file(tmp_path), RECIPE)


@pytest.mark.parametrize(
    ("changes", "dataset_id", "order", "message"),
    [
        ([], "abc", ORDER_VERSION, None),
        (["images=9"], "abc", ORDER_VERSION, None),
        (["flip=0.25"], "abc", ORDER_VERSION, r"belongs to another recipe \(flip: 0.5 -> 0.25\)"),
        ([], "feed", ORDER_VERSION, "was trained on dataset abc, but the given shards are feed"),
        ([], "abc", "philox-0", f"uses sample order philox-0, this version uses {ORDER_VERSION}"),
    ],
)
def test_a_checkpoint_must_be_of_the_same_recipe_dataset_and_order(
    tmp_path: Path, changes: list[str], dataset_id: str, order: str, message: str | None
) -> None:
    folder = tmp_path / "checkpoints" / "step-000000001"
    folder.mkdir(parents=True)
    save_recipe(RECIPE, recipe_file(folder))
    state, recipe = {**STATE, "order": order}, override(RECIPE, changes)
    if message is None:
        check_checkpoint(folder, state, recipe, dataset_id)
    else:
        with pytest.raises(UserError, match=message):
            check_checkpoint(folder, state, recipe, dataset_id)


def test_a_path_that_torch_or_tensorboard_cannot_use_is_refused(tmp_path: Path) -> None:
    check_run_folder(tmp_path / "größe→🐱", RECIPE)
    with pytest.raises(UserError, match=r"the path .*caf\udce9 is not UTF-8: rename the folder"):
        check_run_folder(tmp_path / os.fsdecode(b"caf\xe9"), RECIPE)
    in_an_ascii_locale = "größe".encode().decode("ascii", "surrogateescape")
    with pytest.raises(UserError, match=r"is not ASCII, .*LC_ALL=C.UTF-8"):
        check_run_folder(tmp_path / in_an_ascii_locale, RECIPE)
