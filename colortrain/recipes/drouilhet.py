"""Drouilhet and L'Herminé: a deep U-Net, trained on COCO in three ways.

The paper is "Deep-learning: Colorization of Images" by Drouilhet and L'Herminé (2025).
The three ways are a GAN with soft labels, WGAN-GP with a decreasing L1 weight, and a
ProGAN hybrid with a VGG loss. Comments on fields cite the paper's sections.
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

# For table 3's VGG: the paper names neither its layers nor its scale. Section 11 shows
# that equation 6 has another scale, see `drouilhet_progan`.
_VGG_NOTE = (
    "the layers and the scale of the paper's VGG are not given, and equation 6, computed here, "
    "has another scale: compare only the order of the three systems"
)


def drouilhet_gan() -> Recipe:
    r"""The standard GAN of Drouilhet and L'Herminé: soft labels and a rebalanced L1.

    (Sections 1.3, 3 and 4 of the paper.) The labels are soft for real and for generated
    images. Rare colours have a higher weight in L1.

    The reported scores are measured on COCO at 256 px; PSNR is computed from RGB in [0,
    1] (section 5). Cost: not given.

        accelerate launch -m launch.train --recipe drouilhet_gan \
            --shards SHARDS --run runs/drouilhet_gan

    With `--set objective.reconstruction.0.mode=smoothed`, many more pixels have a
    higher weight.
    """
    return Recipe(
        name="drouilhet_gan",
        # The paper does not say how PSNR is averaged, over how many photographs, or how
        # many are used for training. Hardware: Colab (section 7.5.3).
        headline=reported("table 3", _VGG_NOTE, psnr=19.63, vgg_distance=4.2968),
        paper="drouilhet",
        # Section 2 says only that COCO has "varied resolutions". Whether photographs
        # are cropped or squashed to 256 px is not given, so `fit` is not set.
        size=256,  # section 3.1
        batch_size=16,  # not given; that of Nampouri et al., on the same data and size
        # Table 3 says 10 epochs, but its 19.63 dB belong to the curve of 27: they are
        # the end of the curve (caption of figure 1), or its peak, at epoch 26 (section
        # 4.3). The weights of the last step are scored here.
        epochs=27,  # section 4
        # upsampling is by nearest neighbour (section 3.1), not as in table 2 by
        # transposed convolutions; initial weights: not given, those of Isola et al.
        generator=DeepUNetConfig(  # section 3.1: 15,674,818 parameters
            base_channels=64, levels=4, norm="batch"
        ),
        critic=SquareCriticConfig(  # section 3.1: 16x16 map; depth 4 of 3, 4 and 5
            base_channels=64, depth=4, norm="batch"
        ),
        # the optimizer and its betas are not given: those of Isola et al.
        generator_adam=Adam(lr=4e-4, betas=(0.5, 0.999)),  # rate: section 4.1
        critic_adam=Adam(lr=5e-5, betas=(0.5, 0.999)),  # rate: sections 4.1 and 1.3.1
        objective=Objective(
            # The factor of one half: a critic loss of 0.6 to 0.7 (section 4.1) can only
            # be the mean of the losses on real and on generated images. With these
            # labels the mean is at least 0.50, but the sum at least 1.00.
            adversarial=BCE(  # sections 1.3.2 and 3.2; the generator's target is 1
                real_label=0.8, fake_label=0.2, critic_factor=0.5
            ),
            adversarial_weight=constant(1.0),  # section 3.2
            # The colour weights are divided by their maximum, multiplied by 5, and are
            # at least 0.5 (section 1.3.3). If one ab bin is empty, its weight is so
            # large that, after the division, nearly every colour that occurs has the
            # weight 0.5. So here the maximum is taken over colours that occur. Nearly
            # every pixel still has the weight 0.5 (comments in `RebalancedL1` give
            # numbers). The mode "smoothed" is the method of Zhang et al., which does
            # rebalance; "literal" is the paper's formula, which the authors probably
            # used, judging by their published losses. Of the losses of section 4.2 the
            # last epoch's fit together (70 x 0.044 + an adversarial loss of 0.85 =
            # 3.93), but not the first's: 70 x 0.144 is 10.1, and the total is said to
            # be 5.27.
            reconstruction=(  # sections 1.3.3 and 1.3.4
                RebalancedL1(weight=constant(70.0), mode="populated", largest=5.0, least=0.5),
            ),
        ),
        # section 3.1: ab in [-1, 1]; the divisor of ab, 110 here, and the range of the
        # "normalized" L are not given
        codec=SymmetricCodec(),
        flip=0.0,  # none mentioned
    )


def drouilhet_wgan_gp() -> Recipe:
    r"""The Wasserstein GAN of Drouilhet and L'Herminé, with a gradient penalty.

    (Sections 6 and 7 of the paper.) There are five critic steps per generator step, and
    the critic has InstanceNorm. The weight of L1 is first 70, then 10, then 30.

    The reported scores are measured as in `drouilhet_gan`. Cost: over 10 hours on
    Colab (section 7.5.3).

        accelerate launch -m launch.train --recipe drouilhet_wgan_gp \
            --shards SHARDS --run runs/drouilhet_wgan_gp
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_wgan_gp",
        # The number of epochs stays 27 (table 3, section 7.6); section 7.5.3 says 30.
        # The learning rates stay those of the GAN, because section 7 lists what
        # changed, and gives no new ones.
        headline=reported("table 3", _VGG_NOTE, psnr=21.41, vgg_distance=4.1719),
        critic=SquareCriticConfig(base_channels=64, depth=4, norm="instance"),  # section 7.1.1
        objective=Objective(
            # The text says that equation 2, E[C(fake)] - E[C(real)], is maximised: it
            # is minimised here, as it must be. The generator's loss is not given:
            # -E[C(fake)], as in Arjovsky et al. 2017.
            adversarial=Wasserstein(),  # equation 2, section 7.2
            adversarial_weight=constant(1.0),  # section 3.2
            # The losses of section 7.6 contradict each other unless L1 is added over a
            # and b in training: at the end of phase 1 the total of 11.5 less the
            # adversarial loss of 5.6 is 70 x 0.084, twice the L1 of 0.04 that is
            # reported; at its start, 5.0 less 0.1 is 70 x 0.07. The first epoch of the
            # GAN fits neither (see there). The mean is kept;
            # `--set objective.reconstruction.0.channels=sum` adds. Whether this L1 is
            # rebalanced is not stated; section 7 does not list it among the changes.
            reconstruction=(  # sections 7.5.1 to 7.5.3
                # The weight falls at epoch 19 (section 7.5), not 18 (sections 7.6 and
                # 7.7), because the plan of the weights says "Epochs 0-18". Counted from
                # 0, the last of 27 epochs is 26, the only one of phase 3. If the paper
                # counts from 1 (sections 7.6, 8.1), each change is an epoch earlier.
                RebalancedL1(weight=Schedule(((0, 70.0), (19, 10.0), (26, 30.0)))),
            ),
            penalties=(
                # weight: not given; that of Gulrajani et al. 2017; the gradient is with
                # respect to the "image pair" (section 7.3), which includes L. C is "a
                # scalar score" (section 6.2), but the changes (section 7.1.1) do not
                # include the map of 16x16: its mean is taken. The usual code takes the
                # sum, with norms 256 times as large:
                # `--set objective.penalties.0.patches=sum`.
                GradientPenalty(  # equation 4
                    weight=constant(10.0), points="interpolated", wrt="picture", target=1.0
                ),
            ),
        ),
        # section 7.4.1; whether on five batches or on one is not given: five here, so
        # that the generator has a fifth of the GAN's updates per epoch; one with
        # `--set critic_batches=same`
        n_critic=5,
    )


def drouilhet_progan() -> Recipe:
    r"""The ProGAN hybrid of Drouilhet and L'Herminé, with a VGG loss instead of L1.

    (Section 9 of the paper.) Two layers are taken from ProGAN: PixelNorm in the
    generator and the minibatch standard deviation in the critic. The critic's output
    therefore depends on the number of processes.

    The reported scores are measured as in `drouilhet_gan`. Cost: not given.

        accelerate launch -m launch.train --recipe drouilhet_progan \
            --shards SHARDS --run runs/drouilhet_progan

    Training downloads torchvision's vgg16-397923af.pth (528 MB) once. Without internet
    access, put it into the folder that the error message names, or test the setup with
    `--set objective.reconstruction.0.weights=random`.
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_progan",
        # Section 11 gives a PSNR of 21.12 dB. Despite the name the networks do not
        # grow: all images are 256 px. The paper does not say that labels, learning
        # rates or the critic's BatchNorm change, so they stay those of `drouilhet_gan`.
        headline=reported("table 3", _VGG_NOTE, psnr=20.92, vgg_distance=3.3715),
        epochs=20,  # table 3
        # PixelNorm keeps a convolution's mean, so the convolutions have biases
        generator=DeepUNetConfig(  # section 9.1, equation 5: 15,671,874 parameters
            base_channels=64, levels=4, norm="pixel"
        ),
        # the deviation is computed over the part of a batch that one process holds
        critic=SquareCriticConfig(  # section 9.2
            base_channels=64, depth=4, norm="batch", minibatch_stddev=True
        ),
        objective=Objective(
            # the labels agree with the paper's critic loss of 0.542 (section 11), which
            # is above the minimum of 0.50 that they allow
            adversarial=BCE(
                real_label=0.8, fake_label=0.2, critic_factor=0.5
            ),  # section 3.2, equation 7
            adversarial_weight=constant(1.0),  # equation 7
            # The reported generator loss, 10.085 (section 11), bounds the VGG loss: at
            # a weight of 100 it is at most 0.101, because BCE is not negative. Table 3
            # gives 3.3715, so its VGG distance must have another scale. Here the loss
            # is equation 6. Section 9 says that VGG was "added to the pixel-wise"
            # error, but equation 7 and table 2 have no L1: they are followed.
            reconstruction=(  # equations 6 and 7, section 9.3
                Perceptual(weight=constant(100.0), weights="imagenet"),
            ),
        ),
    )
