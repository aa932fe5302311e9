"""Metrics that detect two colour failures: bright spots and the sepia collapse.

`lab` and `truth` are (B, 3, H, W) in CIELAB units; chroma is the length of (a, b).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

# These metrics are this project's own. Valentini and Nagaro Quiroz (section VII) wish
# for "a measure that reflects that kind of wrong behavior, in order to measure it
# objectively".

# CIELAB units of chroma: about what sepia adds to a grey pixel; neon adds twice that
MARGIN = 30.0
LARGEST = 0.01  # fraction of the image: a larger component is a wrong colour, not a spot
REACH = 32  # the neighbourhood extends by 1 / REACH of the shorter side in each direction


def chroma(lab: Tensor) -> Tensor:
    """Return the chroma sqrt(a^2 + b^2), (B, H, W), of images `lab` (B, 3, H, W)."""
    return torch.hypot(lab[:, 1], lab[:, 2])


def bright_spots(lab: Tensor, truth: Tensor) -> Tensor:
    """Return the percentage of pixels that lie in bright spots, (B,), on the CPU.

    A bright spot is a connected set of pixels whose chroma exceeds, by more than
    `MARGIN`, the greatest chroma that the true image has near them. Its area is at most
    a fraction `LARGEST` of the image's area, or a single pixel.
    """
    bright = bright_pixels(lab, greatest_chroma_nearby(truth))
    return torch.from_numpy(percent_in_spots(bright.cpu().numpy()))


def greatest_chroma_nearby(truth: Tensor) -> Tensor:
    """Return the greatest chroma in the neighbourhood of each pixel, (B, H, W)."""
    # so a true colour that has spread by a few pixels does not count
    reach = max(1, min(truth.shape[-2:]) // REACH)
    return _sliding_max(_sliding_max(chroma(truth), reach).mT, reach).mT


def _sliding_max(values: Tensor, reach: int) -> Tensor:
    """Return, for each element of the last axis, the maximum within `reach` of it."""
    # Maxima of two overlapping windows are those of a larger one, so that a window of
    # 17 pixels takes five operations. `max_pool2d` is 20 times slower on a CPU.
    length, window, target = values.shape[-1], 1, 2 * reach + 1
    values = pad(values, (reach, reach), value=-math.inf)
    while window < target:
        shift = min(window, target - window)
        values = torch.maximum(values[..., :-shift], values[..., shift:])
        window += shift
    assert values.shape[-1] == length
    return values


def bright_pixels(lab: Tensor, nearby: Tensor) -> Tensor:
    """Return which pixels may belong to a bright spot, (B, H, W) bool.

    nearby: (B, H, W), from `greatest_chroma_nearby` of the true images.
    """
    return chroma(lab) > nearby + MARGIN


def percent_in_spots(bright: np.ndarray) -> np.ndarray:
    """Return the percentage of pixels in bright spots, (B,) float32.

    bright: (B, H, W) bool, from `bright_pixels`.
    """
    # Components are labelled on the CPU: torch has no function for it, and most images
    # have no such pixels.
    area = bright[0].size
    max_size = max(1, int(LARGEST * area))
    spots = np.array([_in_small_components(mask, max_size) for mask in bright], np.float32)
    return spots * np.float32(100 / area)


def _in_small_components(mask: np.ndarray, max_size: int) -> int:
    """Return how many pixels of `mask` lie in components of at most `max_size` pixels.

    mask: (H, W) bool.
    """
    if not mask.any():
        return 0
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # pixels of a component touch at edges or corners
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes[sizes <= max_size].sum())


def sepia(lab: Tensor) -> Tensor:
    """Return how close the colours of an image are to a single hue, (B,).

    The value is 1 if all colours have the same hue, and 0 if their hues are spread in
    all directions or the image is grayscale. Compare it with the value of the true
    images.
    """
    # The circular concentration of hue, weighted by chroma: |sum of (a, b)| / sum of
    # max(chroma, 1). Without the minimum of 1 it would be undefined for grayscale
    # images. A network whose images all have one tone has values near 1 (the papers
    # valentini, section VII, and nazeri, section 5). Measured means: 0.72 for CIFAR-10
    # photographs, 0.64 for COCO's, 0.99 for both in a sepia tone. The entropy of the ab
    # histogram separates photographs from sepia less well (docs/LOG.md).
    together = torch.hypot(*lab[:, 1:].mean(dim=(2, 3)).unbind(1))
    return together / chroma(lab).clamp(min=1).mean(dim=(1, 2))
