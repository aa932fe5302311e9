"""The shard sets of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.reproduce.datasets import build
from shards.errors import UserError
from shards.read.dataset import Split, open_held_out
from tests.launch.reproduce.cifar import small_cifar


def test_only_the_training_set_is_without_grayscale_images(tmp_path: Path) -> None:
    sets = build("cifar10", small_cifar(tmp_path / "cifar-10-batches-bin"), tmp_path / "sets")
    assert len(Split(sets.train, "train")) == 11
    assert len(Split(sets.held_out, "test")) == 12
    assert (sets.size, sets.labelled) == (32, True)


def test_the_rates_of_nazeris_table_fall_by_a_part_of_the_training_images(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin", count=40)
    sets = build("nazeri", source, tmp_path / "sets")
    assert open_held_out(sets.train).name == "val"
    sizes = [len(Split(sets.train, split)) for split in ("train", "val")]
    assert sum(sizes) == 39  # one is grayscale
    assert sizes[1] > 0
    assert len(Split(sets.held_out, "test")) == 40


def test_a_folder_without_batches_is_an_error(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin")
    (source / "data_batch_1.bin").unlink()
    with pytest.raises(UserError, match="contains no data_batch files: give CIFAR-10's folder"):
        build("nazeri", source, tmp_path / "sets")
