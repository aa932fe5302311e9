"""The shard sets of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from launch.reproduce.datasets import (
    _Amounts,
    _chosen,
    build_arun,
    build_cifar10,
    build_nazeri,
    build_places,
)
from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.read.dataset import Split, open_held_out
from tests.launch.reproduce.cifar import small_cifar
from tests.support.photographs import random_crops


def sizes(shards: Path) -> dict[str, int]:
    """Return the number of samples of each split of a shard set."""
    manifest = load_manifest(shards)
    return {name: len(Split(shards, name)) for name in manifest.splits}


def test_only_the_training_set_is_without_grayscale_images(tmp_path: Path) -> None:
    sets = build_cifar10(small_cifar(tmp_path / "cifar-10-batches-bin"), tmp_path / "sets", 32)
    assert len(Split(sets.train, "train")) == 11
    assert len(Split(sets.held_out, "test")) == 12


def test_the_rates_of_nazeris_table_fall_by_a_tenth_of_the_training_images(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin", count=40)
    sets = build_nazeri(source, tmp_path / "sets", 32)
    assert open_held_out(sets.train).name == "val"
    assert sizes(sets.train) == {"train": 36, "val": 4}  # with the grayscale image
    assert len(sets.scored()) == 40


def test_a_folder_without_batches_is_an_error(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin")
    (source / "data_batch_1.bin").unlink()
    with pytest.raises(UserError, match="contains no data_batch files: give CIFAR-10's folder"):
        build_nazeri(source, tmp_path / "sets", 32)


def write_photos(folder: Path, count: int, first: int = 0) -> None:
    """Write different photographs of 48 x 40 px; skip the first `first` of them."""
    folder.mkdir(parents=True)
    for number, square in enumerate(list(random_crops(first + count, side=48))[first:]):
        Image.fromarray(square[:40]).save(folder / f"{number}.png")


SMALL = _Amounts(train=8, held_out=4, name="test")


def test_papers_use_exact_numbers_of_photographs(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)
    sets = _chosen(tmp_path / "photos", tmp_path / "sets", 32, SMALL, "squash")
    assert sizes(sets.train) == {"train": 8, "test": 4}
    assert load_manifest(sets.train).fit == "squash"
    assert "8 training images and 4 others" in sets.note


def test_a_source_with_fewer_photographs_keeps_the_proportions(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 9)
    sets = _chosen(tmp_path / "photos", tmp_path / "sets", 32, SMALL, None)
    assert sizes(sets.train) == {"train": 6, "test": 3}


@pytest.mark.parametrize(
    ("train", "held_out", "expected"), [(12, 6, (8, 4)), (12, 3, (12, 3)), (3, 6, (3, 6))]
)
def test_folders_of_a_dataset_are_its_splits(
    train: int, held_out: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    write_photos(tmp_path / "coco" / "train2014", train)
    write_photos(tmp_path / "coco" / "val2014", held_out, first=train)
    sets = _chosen(tmp_path / "coco", tmp_path / "sets", 32, SMALL, None)
    assert sizes(sets.train) == dict(zip(("train", "test"), expected, strict=True))


def test_aruns_scores_are_of_the_training_images(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 22)
    sets = build_arun(tmp_path / "photos", tmp_path / "sets", 32)
    assert sizes(sets.train) == {"train": 20, "val": 2}
    assert len(sets.scored()) == sets.training_images() == 20
    assert "do not describe unseen images" in sets.note
    assert load_manifest(sets.train).fit == "squash"  # section II-B: "resized to"


def test_places_has_a_validation_split_apart_from_the_scored_one(tmp_path: Path) -> None:
    write_photos(tmp_path / "places" / "data_256", 100)
    write_photos(tmp_path / "places" / "val_256", 5, first=100)
    sets = build_places(tmp_path / "places", tmp_path / "sets", 32)
    assert sizes(sets.train) == {"train": 99, "val": 1, "test": 5}
    assert sets.scored().name == "test"
    assert open_held_out(sets.train).name == "val"
    write_photos(tmp_path / "photos", 60)
    plain = build_places(tmp_path / "photos", tmp_path / "plain", 32)
    assert set(sizes(plain.train)) == {"train", "val", "test"}


def test_cifar_has_one_size(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(UserError, match="--size 64: CIFAR-10 has images of 32 px"):
        build_nazeri(source, tmp_path / "sets", 64)
