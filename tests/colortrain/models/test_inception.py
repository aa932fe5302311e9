"""Inception-v3 against torch-fidelity's outputs, and TensorFlow 1's resizing."""

from __future__ import annotations

import torch
from torch import Tensor

from colortrain.models.inception import load_inception, resize_tensorflow1

FEATURES = [0.9937319, 0.9628648, 0.2417384, 0.1599092]


LOGITS = [0.1494788, 0.3720036, -0.4918069, -0.2361449]


def picture() -> Tensor:
    """(1, 3, 40, 56) of whole numbers, the same everywhere."""
    place = torch.arange(3 * 40 * 56).reshape(1, 3, 40, 56)
    return place * place % 251


def test_inception_is_torch_fidelitys() -> None:
    """What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 says with the same weights (docs/LOG.md: how)."""
    features, logits = load_inception("random", "")(picture())
    assert (features.shape, logits.shape) == ((1, 2048), (1, 1008))
    torch.testing.assert_close(features[0, ::512], torch.tensor(FEATURES), rtol=1e-4, atol=0)
    torch.testing.assert_close(logits[0, ::252], torch.tensor(LOGITS), rtol=1e-4, atol=0)


def test_scaling_begins_at_the_first_pixel() -> None:
    """TensorFlow 1 takes pixel i from i x (input / size): 2 pixels to 4 repeat the last one."""
    row = resize_tensorflow1(torch.tensor([[[[0.0, 10.0]]]]), 4)[0, 0, 0]
    assert row.tolist() == [0, 5, 10, 10]
