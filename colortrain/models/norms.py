"""Normalization layers by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "instance", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """BatchNorm (affine), InstanceNorm (not affine) or nothing, for (B, channels, H, W)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()
