"""A small classifier of 32 px pictures, whose features stand in where no Inception weights are at hand."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] to logits (B, 10): a stem, a pooling and three residual blocks; 0.35 M parameters."""

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
        """(B, 4 width): the last maps, averaged over the picture."""
        return self.body(self.stem((rgb - 0.5) / 0.25)).mean((2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.head(self.features(rgb))


class Block(nn.Module):
    """conv - BN - ReLU - conv - BN, the input added, ReLU (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        plain = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()
