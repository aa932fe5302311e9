"""nampouri: "Image Colorization with Conditional Generative Adversarial Networks" (Nampouri, Hadjichristodoulou,
Andreadis, University of Groningen): two pix2pix cGANs on 8,000 photographs of COCO."""

from __future__ import annotations

import dataclasses

from colortrain.lab import SymmetricCodec
from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant


def nampouri_unet() -> Recipe:
    """The U-Net of sections 4.2 and A.1 against the 70-pixel patch critic.

    Headline (section 6): test L1 0.0917 (ab / 110) on 2,000 COCO photographs, 256 px. A grey picture scores about
    0.096 on such photographs, so read it beside grey. Cost: one A100, about 4 hours (section 5.2).

        accelerate launch -m launch.train --recipe nampouri_unet --shards SHARDS --run runs/nampouri_unet

    Contradictions, and what is read: equation 18 takes the L1 of critic scores (read: of ab); figure 15's 512@16x16
    to 1@30x30 cannot be (read: strides 2, 2, 2, 1, 1); the critic ends in a sigmoid (read: logits, the same loss).
    """
    return Recipe(
        name="nampouri_unet",
        paper="nampouri",
        size=256,  # 5.1
        batch_size=16,  # 5.2
        epochs=300,  # 5.2: 150,000 steps on 8,000 photographs
        generator=UNetConfig(
            base_channels=64, levels=8, dropout=0.5, dropout_blocks=3
        ),  # 4.2, A.1: 54,410,370
        critic=PatchCriticConfig(base_channels=64, strided_layers=3),  # 4.2, A.2: 2,765,633
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # 5.2
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # 5.2
        objective=Objective(
            adversarial=BCE(critic_factor=0.5),  # equations 14-17
            adversarial_weight=constant(1.0),  # equation 19
            reconstruction=(L1(weight=constant(100.0)),),  # equation 18-19, lambda in 5.2
        ),
        codec=SymmetricCodec(),  # equations 4-6
        flip=0.5,  # 5.1
        test_dropout=True,  # 4.2: "during both training and testing"
    )


def nampouri_resnet18() -> Recipe:
    """The generator around ImageNet's ResNet-18 of sections 4.2 and A.2; all else is `nampouri_unet`.

    Headline (section 6): test L1 0.0945 (ab / 110) on 2,000 COCO photographs, 256 px: above the U-Net's 0.0917, and
    within sampling error of a grey picture's 0.096. Cost: one A100, about 4 hours (section 5.2).

        accelerate launch -m launch.train --recipe nampouri_resnet18 --shards SHARDS --run runs/nampouri_resnet18

    A fresh run downloads torchvision's resnet18-f37072fd.pth (45 MB) once; without a network put it where the error
    says, or start from nothing with `--set generator.pretrained=none`.

    Contradictions, and what is read: those of `nampouri_unet`; A.2 lists the decoder by the channels that go in
    (C256-C512-...), figure 13 by those that come out: the figure's 3,544,066 parameters decide.
    """
    return dataclasses.replace(
        nampouri_unet(),
        name="nampouri_resnet18",
        generator=ResNet18UNetConfig(
            base_channels=64, pretrained="imagenet"
        ),  # 4.2, A.2: 14,720,578
        test_dropout=False,  # figure 13: this generator has no dropout
    )
