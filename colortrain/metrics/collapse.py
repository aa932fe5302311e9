"""Metrics that detect two colour failures: bright spots and the sepia collapse.

These metrics are this project's own. Valentini and Nagaro Quiroz (section VII) wish
for "a measure that reflects that kind of wrong behavior, in order to measure it
objectively". `lab` and `truth` are (B, 3, H, W) in CIELAB units; chroma is the length
of (a, b).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

# CIELAB units of chroma: about what sepia adds to a grey pixel; neon adds twice that
MARGIN = 30.0
LARGEST = 0.01  # fraction of the image: a larger component is a wrong colour, not a spot
REACH = 32  # the neighbourhood extends by 1 / REACH of the shorter side in each direction


def chroma(lab: Tensor) -> Tensor:
    """Return the chroma sqrt(a^2 + b^2), (B, H, W), of images `lab` (B, 3, H, W)."""
    return torch.hypot(lab[:, 1], lab[:, 2])


def bright_spots(
    lab: Tensor, truth: Tensor, margin: float = MARGIN, largest: float = LARGEST
) -> Tensor:
    """Return the percentage of pixels that lie in bright spots, (B,).

    A pixel is too bright if its chroma exceeds, by more than `margin`, the greatest
    chroma that the true image has in a square around the pixel. The square extends by
    max(1, size // 32) pixels in each direction, where size is the shorter side of the
    image. So a true colour that has spread by a few pixels does not count. Pixels that
    are too bright and touch, also at corners, form one component. A component is a spot
    if its area is at most a fraction `largest` of the image's area, or a single pixel.
    The truth and the grayscale baseline have no spots.
    """
    height, width = lab.shape[-2:]
    reach = max(1, min(height, width) // REACH)
    nearby = ndimage.maximum_filter(
        chroma(truth).cpu().numpy(), (1, 2 * reach + 1, 2 * reach + 1), mode="nearest"
    )
    bright = chroma(lab).cpu().numpy() > nearby + margin
    spots = [_in_small_components(mask, max(1, int(largest * mask.size))) for mask in bright]
    return torch.tensor(spots, dtype=lab.dtype, device=lab.device) * (100 / (height * width))


def _in_small_components(mask: np.ndarray, max_size: int) -> int:
    """Return how many pixels of `mask` lie in components of at most `max_size` pixels.

    mask: (H, W) bool. A component is a set of pixels that are True in `mask` and touch
    at edges or corners.
    """
    if not mask.any():
        return 0
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes[sizes <= max_size].sum())


def sepia(lab: Tensor) -> Tensor:
    """Return how close the colours of an image are to a single hue, (B,).

    The value is 1 if all colours have the same hue, and 0 if their hues are spread in
    all directions. It is the circular concentration of hue weighted by chroma: |sum of
    (a, b)| / sum of max(chroma, 1), over pixels. The minimum of one unit of chroma
    makes the value 0 for grayscale images, where it would be undefined. A network whose
    images all have one tone has values near 1 (the sepia collapse: the papers
    valentini, section VII, and nazeri, section 5). Compare its values with those of the
    true images. Measured means: 0.72 for CIFAR-10 photographs, 0.64 for COCO's, and
    0.99 for both in a sepia tone. The entropy of the ab histogram separates photographs
    from sepia less well (docs/LOG.md).
    """
    together = torch.hypot(*lab[:, 1:].mean(dim=(2, 3)).unbind(1))
    return together / chroma(lab).clamp(min=1).mean(dim=(1, 2))
