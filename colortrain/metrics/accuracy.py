"""The two metrics of Nazeri et al. (section 4): accuracy and mean absolute error.

`lab` (the images to score) and `truth` are (B, 3, H, W) in CIELAB units; every function
returns one number per image, (B,).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=8)
def _ranges(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the ranges of L, a and b, (3, 1, 1), as the authors' code scales them.

    They are 0 to 100 for L and -110 to 110 for a and b.
    """
    # cached, because copying them to the GPU in every call would make the CPU wait
    return torch.tensor([100.0, 220.0, 220.0]).view(3, 1, 1).to(device, dtype)


def accuracy(lab: Tensor, truth: Tensor, percent: float, channels: slice = slice(0, 3)) -> Tensor:
    """Return the percentage of pixels whose `channels` are all accurate: (B,).

    A channel of a pixel is accurate if, after rounding to whole units, it differs from
    the truth by at most `percent` % of the channel's range (Nazeri et al., equation
    10). `slice(1, 3)` selects a and b.
    """
    # A network that returns the true L makes no error in L, so accuracy is also
    # computed for a and b alone. The ranges are those of the authors' function
    # pixelwise_accuracy.
    allowed = (_ranges(lab.device, lab.dtype) * percent / 100)[channels]
    difference = (lab[:, channels].round() - truth[:, channels].round()).abs()
    correct = difference <= allowed + 1e-4  # a difference of 11, 5 % of 220, is allowed
    return 100 * correct.all(dim=1).to(lab.dtype).mean(dim=(1, 2))


def mae(lab: Tensor, truth: Tensor) -> Tensor:
    """Return 100 x the mean absolute difference of L / 50, a / 110 and b / 110: (B,).

    (Nazeri et al., table 1.)
    """
    # the paper gives no unit; this one is consistent with its table, since the
    # grayscale baseline has 5.6 on CIFAR-10
    halves = _ranges(lab.device, lab.dtype) / 2
    return 100 * ((lab - truth).abs() / halves).mean(dim=(1, 2, 3))


def mae_lab(lab: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference of L, a and b in CIELAB units: (B,)."""
    return (lab - truth).abs().mean(dim=(1, 2, 3))
