"""nazeri's two measures (section 4): a share of pixels that are right, and a mean absolute error.

`lab` and `truth` are (B, 3, H, W) in CIELAB units; every function returns one number a picture, shape (B,). Both count
L too: a network that is given L and keeps it has a third of the error for nothing, so the shares also come for a and b
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RANGE = torch.tensor(
    [100.0, 220.0, 220.0]
)  # of L in [0, 100], a and b in [-110, 110], as [code] scales them


def accuracy(lab: Tensor, truth: Tensor, percent: float, channels: slice = slice(0, 3)) -> Tensor:
    """Percentage of pixels whose `channels` are all right to `percent` of their range (nazeri equation 10).

    Every channel is first rounded to whole units; right is then at most `percent` units off in L and 2.2 `percent`
    in a and b, as in the authors' code (pixelwise_accuracy). `slice(1, 3)` is a and b alone.
    """
    allowed = (_RANGE * percent / 100).to(lab).view(3, 1, 1)[channels]
    right = (
        lab[:, channels].round() - truth[:, channels].round()
    ).abs() <= allowed + 1e-4  # 11 is 5 % of 220
    return 100 * right.all(dim=1).to(lab.dtype).mean(dim=(1, 2))


def mae(lab: Tensor, truth: Tensor) -> Tensor:
    """100 x the mean |difference| of L, a and b scaled to [-1, 1]: L / 50 - 1, a / 110, b / 110 (nazeri table 1).

    The paper gives no unit; this one agrees with its table, where a grey picture would stand at 5.6 on CIFAR-10.
    """
    return 100 * ((lab - truth).abs() / (_RANGE / 2).to(lab).view(3, 1, 1)).mean(dim=(1, 2, 3))


def mae_lab(lab: Tensor, truth: Tensor) -> Tensor:
    """Mean |difference| of L, a and b in CIELAB units."""
    return (lab - truth).abs().mean(dim=(1, 2, 3))
