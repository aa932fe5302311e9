"""A small classifier of 32 px images, used as a feature extractor.

A Fréchet distance can be computed from its features, without Inception weights.
"""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """A network that maps RGB (B, 3, H, W) in [0, 1] to logits (B, `classes`)."""

    def __init__(self, width: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.body = nn.Sequential(
            Block(width, 2 * width, 1),
            Block(2 * width, 4 * width, 2),
            Block(4 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, classes)

    def features(self, rgb: Tensor) -> Tensor:
        """Return the last feature maps' means over pixels: (B, 4 * width).

        rgb: (B, 3, H, W) in [0, 1].
        """
        return self.body(self.stem((rgb - 0.5) / 0.25)).mean((2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """Return logits (B, `classes`) of RGB (B, 3, H, W) in [0, 1]."""
        return self.head(self.features(rgb))


class Block(nn.Module):
    """A residual block: conv - BN - ReLU - conv - BN, plus a shortcut, then ReLU.

    (He et al. 2016.)
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        identity = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if identity else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return (self.body(x) + self.shortcut(x)).relu()
