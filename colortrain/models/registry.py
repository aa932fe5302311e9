"""All networks that recipes may use.

To add one, add its config class to one of the two unions in this module.
"""

from __future__ import annotations

from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.fully_convolutional import FullyConvolutionalConfig, SameCriticConfig
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.models.shallow_unet import ShallowUNetConfig
from colortrain.models.square_critic import SquareCriticConfig

GeneratorConfig = (
    UNetConfig
    | ResUNetConfig
    | ShallowUNetConfig
    | FullyConvolutionalConfig
    | DeepUNetConfig
    | ResNet18UNetConfig
    | ResidualUNetConfig
)
CriticConfig = PatchCriticConfig | GlobalCriticConfig | SameCriticConfig | SquareCriticConfig
