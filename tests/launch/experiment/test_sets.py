"""The shard sets of an experiment: training images and the scored split."""

from __future__ import annotations

from pathlib import Path

from launch.experiment.sets import Sets
from tests.support.small_shard_set import small_set


def test_scores_are_of_held_out_images_unless_a_split_is_named(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=8, splits=("train", "val"))
    sets = Sets(shards, shards)
    assert (sets.training_images(), sets.scored().name) == (4, "val")
    assert Sets(shards, shards, split="train").scored().name == "train"
