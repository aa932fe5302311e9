"""Inception-v3 against torch-fidelity's outputs, and TensorFlow 1's resizing."""

from __future__ import annotations

import torch
from torch import Tensor

from colortrain.models.inception import load_inception, resize_tensorflow1

FEATURES = [0.9937319, 0.9628648, 0.2417384, 0.1599092]


LOGITS = [0.1494788, 0.3720036, -0.4918069, -0.2361449]


def image() -> Tensor:
    """Return a fixed image of whole numbers, (1, 3, 40, 56)."""
    index = torch.arange(3 * 40 * 56).reshape(1, 3, 40, 56)
    return index * index % 251


def test_inception_equals_torch_fidelity() -> None:
    """Outputs of torch-fidelity 0.4.0's network with the same weights.

    The network is FeatureExtractorInceptionV3; docs/LOG.md describes the comparison.
    """
    features, logits = load_inception("random", "")(image())
    assert (features.shape, logits.shape) == ((1, 2048), (1, 1008))
    torch.testing.assert_close(features[0, ::512], torch.tensor(FEATURES), rtol=1e-4, atol=0)
    torch.testing.assert_close(logits[0, ::252], torch.tensor(LOGITS), rtol=1e-4, atol=0)


def test_resize_equals_tensorflow_1() -> None:
    """Pixel i is read at i * (input / size), so 2 to 4 pixels repeats the last one."""
    row = resize_tensorflow1(torch.tensor([[[[0.0, 10.0]]]]), 4)[0, 0, 0]
    assert row.tolist() == [0, 5, 10, 10]
