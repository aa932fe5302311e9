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
    COCO test photographs of 256 px, read as the mean of |ab - truth| / 110 with the
    weights of the last step: the paper names neither a unit nor a checkpoint ("up to
    300 epochs"). Cost: one A100, about 4 hours (section 5.2).

    The 8,000 training photographs are read as COCO 2014's; which ones is not given. The
    2,000 test photographs are "~5 %" of the validation set (40,504) as well as of the
    test set (40,775). All are resized to 256x256 (sections 5.1, 5.2):

        colortrain shards build COCO SHARDS --size 256 --fit squash --splits source \
            --rename train2014=train,val2014=val --take train=8000,val=2000
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
        # Appendix A.1 lists seven encoder layers, figure 10 has eight (the last with a
        # bias, without BatchNorm); A.1's decoder list has input channels. Figures 10
        # and 11 are followed.
        generator=UNetConfig(  # section 4.2, appendix A.1: 54,410,370 parameters
            base_channels=64, levels=8, dropout=0.5, dropout_blocks=3
        ),
        # Figure 15's step from 512@16x16 to 1@30x30 is impossible: the strides are 2,
        # 2, 2, 1, 1, although in appendix A "all convolutions" have stride 2. The
        # paper's critic ends in a sigmoid: here it returns logits, and the loss is the
        # same.
        # section 4.2, appendix A.3, figure 15: 2,765,633 parameters
        critic=PatchCriticConfig(base_channels=64, strided_layers=3),
        # no learning-rate schedule is mentioned: the rates are constant
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # section 5.2
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # section 5.2
        objective=Objective(
            # Section 4.2 averages "all responses" to one output of D, but equations
            # 14-17 have a label per patch: here, as in `valentini_cgan`, the loss is
            # computed per patch and then averaged.
            adversarial=BCE(critic_factor=0.5),  # equations 14-17
            adversarial_weight=constant(1.0),  # equation 19
            # equation 18 takes the L1 of critic scores: here the L1 of ab is taken, as
            # a mean over a and b (whether it is their sum is not given)
            reconstruction=(L1(weight=constant(100.0)),),  # equations 18-19; lambda: section 5.2
        ),
        codec=SymmetricCodec(),  # equations 4-6
        flip=0.5,  # section 5.1
        # `colortrain evaluate --dropout both` also scores without dropout. BatchNorm at
        # test time is not given: here it uses running statistics, and in Isola et al.
        # those of the test batch.
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
        # Appendix A.2 lists the decoder as C256-C512-C256-C128-C128: from the second
        # entry on, these are input channels (the first layer has 512). Figure 13 lists
        # output channels and is followed: the decoder then has its 3,544,066
        # parameters. In appendix A "all convolutions" are 4x4: the encoder's are 7x7,
        # 3x3 and 1x1, as in ResNet-18 and the counts of figure 12.
        generator=ResNet18UNetConfig(  # section 4.2, appendix A.2: 14,720,578 parameters
            base_channels=64, pretrained="imagenet"
        ),
        test_dropout=False,  # figure 13: this generator has no dropout
    )
