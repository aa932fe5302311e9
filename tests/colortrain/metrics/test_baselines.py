"""The constant-colour baseline: from which split its median comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from colortrain.lab import SymmetricCodec, stored_to_lab
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.evaluate import score_split
from colortrain.metrics.image_metrics import ImageBatch, l1
from colortrain.metrics.score_tables import text_table
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set

CODEC = SymmetricCodec()


def read(split: Split) -> Tensor:
    return stored_to_lab(torch.from_numpy(split.read(range(len(split)))))


def test_median_is_computed_from_the_train_split(tmp_path: Path, generator: nn.Module) -> None:
    root = small_set(tmp_path, count=12, splits=("train", "val"))
    train = read(Split(root, "train"))[:, 1:].transpose(0, 1).flatten(1)
    ab = [float(channel.median()) for channel in train]
    for name, oracle in (("val", False), ("train", True)):
        scores = score_split(generator, CODEC, Split(root, name), "cpu")
        assert scores["protocol"]["median"] == {
            "ab": ab,
            "split": "train",
            "samples": 6,
            "oracle": oracle,
        }
        truth = read(Split(root, name))
        expected = l1(ImageBatch(truth).with_ab(*ab).lab, truth).mean()
        assert scores["metrics"]["l1"]["median"] == pytest.approx(float(expected), rel=1e-5)
        assert f"median a, b = {ab[0]:g}, {ab[1]:g} of train" in text_table(scores)
        assert ("oracle" in text_table(scores)) is oracle


def test_median_is_computed_from_a_split_whose_name_begins_with_train(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=32, count=9, splits=("train2014", "val2014", "test"))
    assert median_colour(Split(root, "val2014")).split == "train2014"
    assert median_colour(Split(root, "train2014")).split == "train2014"


def test_without_a_train_split_the_median_is_an_oracle(split: Split, generator: nn.Module) -> None:
    median = median_colour(split)
    assert (median.split, median.samples) == ("all", 13)
    assert median.protocol(split)["oracle"] is True
    scores = score_split(generator, CODEC, split, "cpu")["metrics"]["l1"]
    assert scores["median"] < scores["grey"]
