"""The feature classifier: labels, training, its record, and the augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from launch.experiment.feature_classifier import (
    augment,
    load_classifier,
    load_or_train,
    read_labelled,
)
from shards.errors import UserError
from tests.launch.reproduce.cifar import small_cifar


def test_a_classifier_is_trained_once_and_other_weights_are_rejected(tmp_path: Path) -> None:
    source = small_cifar(tmp_path / "cifar-10-batches-bin")
    images, labels = read_labelled(source, "data_batch")
    assert images.shape == (12, 3, 32, 32)
    assert labels.tolist() == [place % 10 for place in range(12)]
    path = tmp_path / "judge.safetensors"
    classifier = load_or_train(source, path, 256)
    assert 0 <= classifier.accuracy <= 1
    lab = torch.rand(3, 3, 32, 32) * 50
    assert np.array_equal(load_classifier(path).features(lab), classifier.features(lab))
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.raises(UserError, match="remove both"):
        load_classifier(path)


def test_augmented_images_keep_their_size() -> None:
    assert augment(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)
