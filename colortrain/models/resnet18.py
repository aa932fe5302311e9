"""A U-Net generator whose encoder is a ResNet-18 trained on ImageNet.

(Nampouri et al., section 4.2, appendix A.2, figures 12-13.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colortrain.models.initialise import normal_init
from colortrain.models.pretrained import RESNET18, load_matching, load_weights


@dataclass(frozen=True, kw_only=True)
class ResNet18UNetConfig:
    """A U-Net around a ResNet-18: L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1].

    `pretrained` names the encoder's weights for a new run: "imagenet" (torchvision's
    file, downloaded once), the path of a .safetensors or .pth file in torchvision's
    layout, or None for random weights. By default there are 14,720,578 parameters.
    """

    base_channels: int = 64
    pretrained: str | None = "imagenet"

    def __post_init__(self) -> None:
        if self.base_channels < 1:
            raise ValueError("base_channels must be at least 1")

    @property
    def outputs(self) -> int:
        """Number of output channels: a and b."""
        return 2

    def check_size(self, size: int) -> None:
        """Raise ValueError if `size`, in pixels, is not divisible by 32.

        It is also raised if `pretrained` is "imagenet" and `base_channels` is not 64.
        """
        if size % 32:
            raise ValueError(f"ResNet-18 requires a size divisible by 32, got {size}")
        if self.pretrained == "imagenet" and self.base_channels != 64:
            raise ValueError(
                f"the ImageNet weights have 64 base channels, not {self.base_channels}: "
                "set generator.pretrained=none"
            )

    def build(self) -> ResNet18UNet:
        """Return a new network; torch's global random generator draws its weights."""
        network = ResNet18UNet(self)
        # the decoder as Isola et al. 2017, the encoder as He et al. 2015
        normal_init(network)
        _he_init(network.encoder)
        return network

    def pretrain(self, network: nn.Module) -> None:
        """Load pretrained weights into the encoder of `network`.

        Raises UserError if they cannot be loaded or do not fit.
        """
        assert isinstance(network, ResNet18UNet)
        if self.pretrained not in (None, "none"):
            tensors = load_weights(self.pretrained, RESNET18, "use --set generator.pretrained=none")
            load_matching(network.encoder, tensors, f"generator.pretrained={self.pretrained}")


def _he_init(module: nn.Module) -> None:
    """Initialise convolutions and BatchNorm as torchvision does for ResNets."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(child, nn.BatchNorm2d):
            nn.init.ones_(child.weight)


class BasicBlock(nn.Module):
    """3x3 conv - BatchNorm - ReLU - 3x3 conv - BatchNorm, plus a shortcut, then ReLU.

    (He et al. 2016, figure 5 left.)
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


class ResNet18(nn.Module):
    """A ResNet-18 without pooling and classifier; tensors have torchvision's names."""

    def __init__(self, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * 2**i for i in range(4)]
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _layer(widths[0], widths[0], stride=1)
        self.layer2 = _layer(widths[0], widths[1], stride=2)
        self.layer3 = _layer(widths[1], widths[2], stride=2)
        self.layer4 = _layer(widths[2], widths[3], stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map `x` (B, 3, H, W) to the list of its five feature maps.

        Their heights and widths are H and W divided by 2, 4, 8, 16 and 32.
        """
        stem = self.bn1(self.conv1(x)).relu()
        maps = [stem, self.layer1(F.max_pool2d(stem, 3, stride=2, padding=1))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


class Up(nn.Module):
    """A decoder layer: ReLU, 4x4 transposed convolution of stride 2, BatchNorm.

    (Nampouri et al., figure 13.)
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        return self.norm(self.conv(x.relu()))


class ResNet18UNet(nn.Module):
    """The generator that `ResNet18UNetConfig` describes."""

    def __init__(self, config: ResNet18UNetConfig) -> None:
        super().__init__()
        base = config.base_channels
        self.encoder = ResNet18(base)
        self.decoder = nn.ModuleList(
            [Up(8 * base, 4 * base), Up(8 * base, 2 * base), Up(4 * base, base), Up(2 * base, base)]
        )
        self.head = nn.ConvTranspose2d(2 * base, 2, 4, stride=2, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        """Map L (B, 1, H, W) to ab (B, 2, H, W) in [-1, 1]."""
        # L as each of R, G and B (equation 12), without ImageNet's normalisation
        skips = self.encoder(L.expand(-1, 3, -1, -1))
        x = skips.pop()
        for up in self.decoder:
            x = torch.cat([up(x), skips.pop()], dim=1)
        return torch.tanh(self.head(x.relu()))
