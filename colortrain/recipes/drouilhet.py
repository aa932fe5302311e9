"""Drouilhet and L'Herminé: a deep U-Net, trained on COCO in three ways.

The paper is "Deep-learning: Colorization of Images" by Drouilhet and L'Herminé (2025).
The three ways are a GAN with soft labels, WGAN-GP with a decreasing L1 weight, and a
ProGAN hybrid with a VGG loss. Comments on fields cite the paper's sections.

The paper does not specify the batch size, Adam's momenta, the weight initialisation,
the augmentation or the number of photographs. The momenta and the initialisation are
those of Isola et al. 2017, the batch size of 16 is that of Nampouri et al. (the same
data at the same size), and there is no augmentation.
"""

from __future__ import annotations

import dataclasses

from colortrain.headline import reported
from colortrain.lab import SymmetricCodec
from colortrain.losses.adversarial import BCE, Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import Schedule, constant


def drouilhet_gan() -> Recipe:
    r"""The standard GAN of Drouilhet and L'Herminé: soft labels and a rebalanced L1.

    (Sections 1.3, 3 and 4 of the paper.) The labels are soft for real and for generated
    images. Rare colours have a higher weight in L1.

    Protocol of the reported scores: COCO, 256 px, PSNR of RGB in [0, 1] (section 5);
    the paper does not say how it is averaged, or over how many photographs. The
    grayscale baseline reaches about 23.8 dB as the mean over images and 20.1 dB pooled,
    so compare the result with it. Cost: not given (Colab, section 7.5.3).

        accelerate launch -m launch.train --recipe drouilhet_gan \
            --shards SHARDS --run runs/drouilhet_gan

    Contradictions in the paper, and how they are resolved. The number of epochs is 27
    (section 4, figure 1) or 10 (table 3): here it is 27, because the curve of 27 epochs
    ends at the 19.63 dB of the table. Upsampling is by nearest neighbour (section 3.1)
    or by transposed convolutions (table 2): the text is followed. A critic loss of 0.6
    to 0.7 (section 4.1) can only be the mean of the losses on real and on generated
    images: with these labels the mean is at least 0.50, but the sum at least 1.00.
    Hence the factor of one half.

    The colour weights are divided by their maximum, multiplied by 5, and are at least
    0.5 (section 1.3.3). If one ab bin is empty, its weight is so large that, after the
    division, nearly every colour that occurs has the weight 0.5. So here the maximum is
    taken over colours that occur. Nearly every pixel still has the weight 0.5
    (`RebalancedL1` gives numbers). `--set objective.reconstruction.0.mode=smoothed` is
    the method of Zhang et al., which does rebalance; `=literal` is the paper's formula,
    which the authors probably used, judging by their published losses.
    """
    return Recipe(
        name="drouilhet_gan",
        headline=reported("table 3", psnr=19.63, vgg_distance=4.2968),
        paper="drouilhet",
        size=256,  # section 3.1
        batch_size=16,  # not given; that of Nampouri et al.
        epochs=27,  # section 4
        generator=DeepUNetConfig(  # section 3.1: 15,674,818 parameters
            base_channels=64, levels=4, norm="batch"
        ),
        critic=SquareCriticConfig(  # section 3.1: 16x16 map; depth 4 of 3, 4 and 5
            base_channels=64, depth=4, norm="batch"
        ),
        generator_adam=Adam(lr=4e-4, betas=(0.5, 0.999)),  # section 4.1; betas of Isola et al.
        critic_adam=Adam(lr=5e-5, betas=(0.5, 0.999)),  # sections 4.1 and 1.3.1
        objective=Objective(
            adversarial=BCE(  # sections 1.3.2 and 3.2; the generator's target is 1
                real_label=0.8, fake_label=0.2, critic_factor=0.5
            ),
            adversarial_weight=constant(1.0),  # section 3.2
            reconstruction=(  # sections 1.3.3 and 1.3.4
                RebalancedL1(weight=constant(70.0), mode="populated", largest=5.0, least=0.5),
            ),
        ),
        codec=SymmetricCodec(),  # section 3.1: normalised to [-1, 1]
        flip=0.0,  # none mentioned
    )


def drouilhet_wgan_gp() -> Recipe:
    r"""The Wasserstein GAN of Drouilhet and L'Herminé: gradient penalty, five critic
    steps.

    (Sections 6 and 7 of the paper.) The critic has InstanceNorm, and the weight of L1
    is first 70, then 10, then 30.

    The protocol is that of `drouilhet_gan`, and the grayscale baseline reaches about
    23.8 dB as the mean over images and 20.1 dB pooled. Cost: over 10 hours on Colab
    (section 7.5.3).

        accelerate launch -m launch.train --recipe drouilhet_wgan_gp \
            --shards SHARDS --run runs/drouilhet_wgan_gp

    Contradictions in the paper, and how they are resolved. The weight of L1 falls at
    epoch 19 (section 7.5) or 18 (sections 7.6 and 7.7): here at 19, because the paper's
    plan of the weights says "Epochs 0-18". The number of epochs is 27 (table 3, section
    7.6) or 30 (section 7.5.3): here 27. The weight of the penalty is not given: it is
    10, as in Gulrajani et al. 2017. New learning rates are not given either: section 7
    lists what changed, so those of the GAN are kept. The penalty's gradient is with
    respect to the "image pair" (section 7.3), which includes L.
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_wgan_gp",
        headline=reported("table 3", psnr=21.41, vgg_distance=4.1719),
        critic=SquareCriticConfig(base_channels=64, depth=4, norm="instance"),  # section 7.1.1
        objective=Objective(
            adversarial=Wasserstein(),  # equation 2, section 7.2
            adversarial_weight=constant(1.0),  # section 3.2
            reconstruction=(  # sections 7.5.1 to 7.5.3
                RebalancedL1(weight=Schedule(((0, 70.0), (19, 10.0), (26, 30.0)))),
            ),
            penalties=(
                GradientPenalty(  # equation 4
                    weight=constant(10.0), points="interpolated", wrt="picture", target=1.0
                ),
            ),
        ),
        n_critic=5,  # section 7.4.1
    )


def drouilhet_progan() -> Recipe:
    r"""The ProGAN hybrid of Drouilhet and L'Herminé: two layers of ProGAN and a VGG
    loss.

    (Section 9 of the paper.) PixelNorm is in the generator, the minibatch standard
    deviation is in the critic, and the VGG loss replaces L1.

    The protocol is that of `drouilhet_gan`, and the grayscale baseline reaches about
    23.8 dB as the mean over images and 20.1 dB pooled. Cost: not given.

        accelerate launch -m launch.train --recipe drouilhet_progan \
            --shards SHARDS --run runs/drouilhet_progan

    Training downloads torchvision's vgg16-397923af.pth (528 MB) once. Without internet
    access, put it into the folder that the error message names, or test the setup with
    `--set objective.reconstruction.0.weights=random`.

    Contradictions in the paper, and how they are resolved. Despite the name the
    networks do not grow: all images are 256 px. The highest PSNR is 21.12 dB (section
    11) or 20.92 dB (table 3): the recipe records that of the table. The paper does not
    say that labels, learning rates or the critic's BatchNorm change, so they stay those
    of `drouilhet_gan`. The soft labels agree with the paper's critic loss of 0.542
    (section 11), which is above the minimum of 0.50 that these labels allow.

    The minibatch standard deviation is computed over the part of a batch that one
    process holds, so the critic's output depends on the number of processes. PixelNorm
    does not remove a convolution's mean, so the convolutions before it have biases.
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_progan",
        headline=reported("table 3", psnr=20.92, vgg_distance=3.3715),
        epochs=20,  # table 3
        generator=DeepUNetConfig(  # section 9.1, equation 5: 15,671,874 parameters
            base_channels=64, levels=4, norm="pixel"
        ),
        critic=SquareCriticConfig(  # section 9.2
            base_channels=64, depth=4, norm="batch", minibatch_stddev=True
        ),
        objective=Objective(
            adversarial=BCE(
                real_label=0.8, fake_label=0.2, critic_factor=0.5
            ),  # section 3.2, equation 7
            adversarial_weight=constant(1.0),  # equation 7
            reconstruction=(  # equations 6 and 7, section 9.3
                Perceptual(weight=constant(100.0), weights="imagenet"),
            ),
        ),
    )
