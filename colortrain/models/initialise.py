"""Weight initialisation and parameter counts."""

from __future__ import annotations

from torch import nn


def normal_init(module: nn.Module, std: float = 0.02) -> None:
    """Initialise convolutions, linear layers and BatchNorm as pix2pix does.

    Weights are drawn from N(0, std^2) (Isola et al. 2017, section 6.2), and BatchNorm's
    weights from N(1, std^2), as in their code. Biases are 0.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(child.weight, 0.0, std)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.weight, 1.0, std)
            nn.init.zeros_(child.bias)


def num_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
