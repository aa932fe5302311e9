"""The Inception-v3 network with which FID is computed.

All published FID values use the weights that TensorFlow released on 2015-12-05 (Heusel
et al. 2017). The blocks are described by Szegedy et al. 2016; the layers have
torch-fidelity's names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.pretrained import INCEPTION, load_matching, load_weights

SIZE = 299  # pixels: height and width to which images are resized

# name, output channels, kernel, stride, padding; a branch is a list of these
Layer = tuple[str, int, int | tuple[int, int], int, int | tuple[int, int]]
_WIDE, _HIGH = ((1, 7), (0, 3)), ((7, 1), (3, 0))


def _conv(name: str, channels: int, kernel: int = 1, padding: int = 0, stride: int = 1) -> Layer:
    return name, channels, kernel, stride, padding


def _seven(name: str, channels: int, shape: tuple[tuple[int, int], tuple[int, int]]) -> Layer:
    return name, channels, shape[0], 1, shape[1]


def _double(channels: int, stride: int = 1) -> list[Layer]:
    last = _conv("branch3x3dbl_3", 96, 3, 1 if stride == 1 else 0, stride)
    return [_conv("branch3x3dbl_1", channels), _conv("branch3x3dbl_2", 96, 3, 1), last]


def _block_a(pool: int) -> list[list[Layer]]:
    five = [_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5, 2)]
    return [[_conv("branch1x1", 64)], five, _double(64), [_conv("branch_pool", pool)]]


_BLOCK_B = [[_conv("branch3x3", 384, 3, 0, 2)], _double(64, 2)]


def _block_c(middle: int) -> list[list[Layer]]:
    single = [
        _conv("branch7x7_1", middle),
        _seven("branch7x7_2", middle, _WIDE),
        _seven("branch7x7_3", 192, _HIGH),
    ]
    shapes = (_HIGH, _WIDE, _HIGH, _WIDE)
    widths = (middle, middle, middle, 192)
    twice = [
        _seven(f"branch7x7dbl_{i}", w, s)
        for i, (w, s) in enumerate(zip(widths, shapes, strict=True), 2)
    ]
    return [
        [_conv("branch1x1", 192)],
        single,
        [_conv("branch7x7dbl_1", middle), *twice],
        [_conv("branch_pool", 192)],
    ]


_BLOCK_D = [
    [_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, 0, 2)],
    [
        _conv("branch7x7x3_1", 192),
        _seven("branch7x7x3_2", 192, _WIDE),
        _seven("branch7x7x3_3", 192, _HIGH),
        _conv("branch7x7x3_4", 192, 3, 0, 2),
    ],
]


class Conv(nn.Module):
    """Convolution without bias, BatchNorm with TensorFlow's epsilon of 0.001, ReLU."""

    def __init__(self, inputs: int, layer: Layer) -> None:
        super().__init__()
        _, channels, kernel, stride, padding = layer
        self.conv = nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W'), with no negative values."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """A block of parallel branches, whose results are concatenated along the channels.

    `pool` is "mean" or "halve". With "mean", the input of the branch called branch_pool
    is first averaged over 3x3 pixels. With "halve", the block halves height and width,
    and one more branch is a 3x3 max pooling.
    """

    def __init__(self, inputs: int, branches: list[list[Layer]], pool: str) -> None:
        super().__init__()
        self.pool, self.names = pool, [[layer[0] for layer in branch] for branch in branches]
        for branch in branches:
            width = inputs
            for layer in branch:
                self.add_module(layer[0], Conv(width, layer))
                width = layer[1]
        self.outputs = sum(branch[-1][1] for branch in branches) + (
            inputs if pool == "halve" else 0
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W').

        H' and W' are about H / 2 and W / 2 if `pool` is "halve", otherwise H and W.
        """
        outputs = []
        for names in self.names:
            y = _average_pool(x) if names[0] == "branch_pool" else x
            for name in names:
                y = self.get_submodule(name)(y)
            outputs.append(y)
        return torch.cat(
            [*outputs, F.max_pool2d(x, 3, 2)] if self.pool == "halve" else outputs, dim=1
        )


def _average_pool(x: Tensor) -> Tensor:
    """Return the mean over the 3x3 pixels around each pixel, excluding the padding."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockE(nn.Module):
    """One of the last two blocks of the network.

    `pool`, "mean" or "max", is the 3x3 pooling in the branch called branch_pool.
    """

    def __init__(self, inputs: int, pool: str) -> None:
        super().__init__()
        wide, high = ((1, 3), (0, 1)), ((3, 1), (1, 0))
        layers: list[tuple[int, Layer]] = [
            (inputs, _conv("branch1x1", 320)),
            (inputs, _conv("branch3x3_1", 384)),
            (384, _seven("branch3x3_2a", 384, wide)),
            (384, _seven("branch3x3_2b", 384, high)),
            (inputs, _conv("branch3x3dbl_1", 448)),
            (448, _conv("branch3x3dbl_2", 384, 3, 1)),
            (384, _seven("branch3x3dbl_3a", 384, wide)),
            (384, _seven("branch3x3dbl_3b", 384, high)),
            (inputs, _conv("branch_pool", 192)),
        ]
        for width, layer in layers:
            self.add_module(layer[0], Conv(width, layer))
        self.pool, self.outputs = pool, 2048

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, 2048, H, W)."""
        # max pooling is a mistake of the original that the weights were trained with
        pooled = F.max_pool2d(x, 3, 1, 1) if self.pool == "max" else _average_pool(x)
        run = self.get_submodule
        three = run("branch3x3_1")(x)
        twice = run("branch3x3dbl_2")(run("branch3x3dbl_1")(x))
        # 1x3 and 3x1 convolutions side by side
        halves = [run(f"branch3x3_2{half}")(three) for half in "ab"]
        halves += [run(f"branch3x3dbl_3{half}")(twice) for half in "ab"]
        return torch.cat([run("branch1x1")(x), *halves, run("branch_pool")(pooled)], dim=1)


_STEM = [
    _conv("Conv2d_1a_3x3", 32, 3, 0, 2),
    _conv("Conv2d_2a_3x3", 32, 3),
    _conv("Conv2d_2b_3x3", 64, 3, 1),
    _conv("Conv2d_3b_1x1", 80),
    _conv("Conv2d_4a_3x3", 192, 3),
]
_POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")


class Inception(nn.Module):
    """FID's network: RGB (B, 3, H, W) to features (B, 2048) and logits (B, 1008).

    The input contains whole numbers from 0 to 255 and may have any size. The network
    has 23,885,392 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        width, self.order = 3, [layer[0] for layer in _STEM]
        for layer in _STEM:
            self.add_module(layer[0], Conv(width, layer))
            width = layer[1]
        plan = [
            ("5b", _block_a(32), "mean"),
            ("5c", _block_a(64), "mean"),
            ("5d", _block_a(64), "mean"),
        ]
        plan.append(("6a", _BLOCK_B, "halve"))
        for letter, middle in zip("bcde", (128, 160, 160, 192), strict=True):
            plan.append((f"6{letter}", _block_c(middle), "mean"))
        plan.append(("7a", _BLOCK_D, "halve"))
        blocks: list[tuple[str, Block | BlockE]] = []
        for name, branches, pool in plan:
            blocks.append((name, Block(width, branches, pool)))
            width = blocks[-1][1].outputs
        blocks += [("7b", BlockE(width, "mean")), ("7c", BlockE(2048, "max"))]
        for name, block in blocks:
            self.add_module(f"Mixed_{name}", block)
            self.order.append(f"Mixed_{name}")
        self.fc = nn.Linear(2048, 1008)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 2048) and logits (B, 1008) of `rgb` (B, 3, H, W)."""
        x = (resize_tensorflow1(rgb.float(), SIZE) - 128) / 128
        for name in self.order:
            x = self.get_submodule(name)(x)
            x = F.max_pool2d(x, 3, 2) if name in _POOLED_AFTER else x
        features = x.mean(dim=(2, 3))
        # without the last layer's bias, as for the inception score
        return features, features @ self.fc.weight.T


def resize_tensorflow1(x: Tensor, size: int) -> Tensor:
    """Resize `x` (B, C, H, W) to (B, C, size, size) bilinearly, as in TensorFlow 1."""
    for dim in (2, 3):
        length = x.shape[dim]
        # FID values depend on details: no half-pixel shift and no antialiasing
        position = torch.arange(size, dtype=torch.float32, device=x.device) * (length / size)
        low = position.long()
        high, fraction = (low + 1).clamp(max=length - 1), position - low
        shape = [1, 1, size, 1] if dim == 2 else [1, 1, 1, size]
        first, second = x.index_select(dim, low), x.index_select(dim, high)
        x = first + (second - first) * fraction.view(shape)
    return x


def load_inception(weights: str, alternative: str) -> Inception:
    """Return FID's network with `weights`, in eval mode.

    `weights` is "imagenet" (torch-fidelity's file, downloaded once), the path of a
    file, or "random" (always the same weights). Raises UserError if the weights cannot
    be loaded; `alternative` is the advice at the end of its message.
    """
    tensors = None if weights == "random" else load_weights(weights, INCEPTION, alternative)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)
        network = Inception()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if tensors is not None:
        load_matching(network, tensors, f"Inception from {weights}")
    return network
