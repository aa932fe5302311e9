"""Nampouri et al.: two pix2pix cGANs, trained on 8,000 photographs of COCO.

The paper is "Image Colorization with Conditional Generative Adversarial Networks" by
Nampouri, Hadjichristodoulou and Andreadis, University of Groningen. Comments on fields
cite its sections.
"""

from __future__ import annotations

import dataclasses

from colortrain.headline import reported
from colortrain.lab import SymmetricCodec
from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant


def nampouri_unet() -> Recipe:
    r"""Nampouri et al.'s U-Net with the 70-pixel patch critic.

    (Section 4.2 and appendix A.1 of the paper.) The reported score is the L1 on 2,000
    COCO test photographs of 256 px. Cost: one A100, about 4 hours (section 5.2).

        accelerate launch -m launch.train --recipe nampouri_unet \
            --shards SHARDS --run runs/nampouri_unet
    """
    return Recipe(
        name="nampouri_unet",
        headline=reported("section 6", l1=0.0917),
        paper="nampouri",
        size=256,  # section 5.1
        fit="squash",  # section 5.1: "resize the variable-sized images"
        batch_size=16,  # section 5.2
        epochs=300,  # section 5.2: 150,000 steps on 8,000 photographs
        generator=UNetConfig(  # section 4.2, appendix A.1: 54,410,370 parameters
            base_channels=64, levels=8, dropout=0.5, dropout_blocks=3
        ),
        # Figure 15's step from 512@16x16 to 1@30x30 is impossible: the strides are 2,
        # 2, 2, 1, 1. The paper's critic ends in a sigmoid: here it returns logits, and
        # the loss is the same.
        critic=PatchCriticConfig(  # section 4.2, appendix A.2: 2,765,633 parameters
            base_channels=64, strided_layers=3
        ),
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # section 5.2
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # section 5.2
        objective=Objective(
            adversarial=BCE(critic_factor=0.5),  # equations 14-17
            adversarial_weight=constant(1.0),  # equation 19
            # equation 18 takes the L1 of critic scores: here the L1 of ab is taken, as
            # a mean over a and b (whether it is their sum is not given)
            reconstruction=(L1(weight=constant(100.0)),),  # equations 18-19; lambda: section 5.2
        ),
        codec=SymmetricCodec(),  # equations 4-6
        flip=0.5,  # section 5.1
        test_dropout=True,  # section 4.2: "during both training and testing"
    )


def nampouri_resnet18() -> Recipe:
    r"""Nampouri et al.'s generator around a ResNet-18 trained on ImageNet.

    (Section 4.2 and appendix A.2 of the paper.) Everything else is as in
    `nampouri_unet`.

    The reported score is the L1 on 2,000 COCO test photographs of 256 px. Cost: one
    A100, about 4 hours (section 5.2).

        accelerate launch -m launch.train --recipe nampouri_resnet18 \
            --shards SHARDS --run runs/nampouri_resnet18

    A new run downloads torchvision's resnet18-f37072fd.pth (45 MB) once. Without
    internet access, put it into the folder that the error message names, or start from
    random weights with `--set generator.pretrained=none`.
    """
    return dataclasses.replace(
        nampouri_unet(),
        name="nampouri_resnet18",
        headline=reported("section 6", l1=0.0945),
        # Appendix A.2 lists the decoder by input channels (C256-C512-...), figure 13 by
        # output channels: the figure is followed, because the decoder then has the
        # figure's 3,544,066 parameters.
        generator=ResNet18UNetConfig(  # section 4.2, appendix A.2: 14,720,578 parameters
            base_channels=64, pretrained="imagenet"
        ),
        test_dropout=False,  # figure 13: this generator has no dropout
    )
