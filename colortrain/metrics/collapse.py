"""What goes wrong with colours, as numbers: neon spots and the sepia collapse.

valentini section VII wishes for "a measure that reflects that kind of wrong behavior, in order to measure it
objectively"; these are ours. `lab` and `truth` are (B, 3, H, W) in CIELAB units, chroma is the length of (a, b).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

MARGIN = 30.0  # CIELAB units of chroma: about what a sepia tone adds to a grey pixel, neon has twice as much
LARGEST = 0.01  # of the picture: what is larger is a wrong colour, not a spot
REACH = 32  # the neighbourhood reaches 1 / REACH of the picture's shorter side in each direction


def chroma(lab: Tensor) -> Tensor:
    """Length of (a, b), (B, H, W)."""
    return torch.hypot(lab[:, 1], lab[:, 2])


def bright_spots(
    lab: Tensor, truth: Tensor, margin: float = MARGIN, largest: float = LARGEST
) -> Tensor:
    """Percentage of pixels that lie in bright spots, (B,).

    A pixel is too bright where its chroma exceeds the greatest true chroma in a square around it by more than
    `margin`; the square reaches max(1, size // 32) pixels each way, so that a true colour which bled a little does
    not count. Such pixels that touch (corners too) are one component; components of at most `largest` of the
    picture's area, and of one pixel at any size, are spots. The truth and grey have none.
    """
    height, width = lab.shape[-2:]
    reach = max(1, min(height, width) // REACH)
    nearby = ndimage.maximum_filter(
        chroma(truth).cpu().numpy(), (1, 2 * reach + 1, 2 * reach + 1), mode="nearest"
    )
    bright = chroma(lab).cpu().numpy() > nearby + margin
    spots = [_in_small_components(mask, max(1, int(largest * mask.size))) for mask in bright]
    return torch.tensor(spots, dtype=lab.dtype, device=lab.device) * (100 / (height * width))


def _in_small_components(mask: np.ndarray, most: int) -> int:
    """How many set pixels of (H, W) lie in 8-connected components of at most `most` pixels."""
    if not mask.any():
        return 0
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes[sizes <= most].sum())


def sepia(lab: Tensor) -> Tensor:
    """How much all colours of a picture are one hue, (B,): 1 for one hue, towards 0 for hues all around.

    The circular concentration of hue weighted by chroma: |sum of (a, b)| / sum of max(chroma, 1), over pixels. The
    floor of one unit makes grey 0 instead of undefined. A network in the sepia collapse (valentini section VII; nazeri
    section 5) brings every picture near 1: read it beside the truth's. Measured: CIFAR-10 photographs .72 on average,
    COCO's .64, both in a sepia tone .99 (the entropy of the ab histogram tells them apart less: .28 and .18).
    """
    together = torch.hypot(*lab[:, 1:].mean(dim=(2, 3)).unbind(1))
    return together / chroma(lab).clamp(min=1).mean(dim=(1, 2))
