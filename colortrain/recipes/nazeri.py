"""Nazeri et al.: U-Nets that generate all of Lab, on CIFAR-10 and Places365.

The paper is "Image Colorization using Generative Adversarial Networks" by Nazeri, Ng
and Ebrahimi, University of Ontario Institute of Technology, arXiv 1803.05400. Comments
on fields cite its sections. In comments, [code] is the authors' public code,
github.com/ImagingLab/Colorizing-with-GANs, whose files changed several times.
The layer plan is that of src/models.py at commit 6b8e459bf1f8 and src/networks.py at
41e8c68957f7.
"""

from __future__ import annotations

import dataclasses

from colortrain.headline import reported
from colortrain.lab import LabCodec
from colortrain.losses.adversarial import BCE
from colortrain.losses.reconstruction import L1, L2
from colortrain.models.fully_convolutional import FullyConvolutionalConfig, SameCriticConfig
from colortrain.recipe import Adam, Objective, Plateau, Recipe
from colortrain.schedule import constant


# [code] is used where the paper does not specify something: the order and widths of
# the layers, which decoder blocks have dropout, the scaling of Lab, and horizontal
# flips. Where paper and code differ, the paper is followed, with four exceptions that
# are part of the layer plan:
# - the generator's first layer has BatchNorm (section 3.1: it has, 3.3: it has not);
# - skip connections are concatenated after BatchNorm and ReLU (3.1: before);
# - the generator's first layer and the critic's fourth have stride 1 (3.1, 3.2: 2);
# - the generator's channels double up to 512 only (3.1: after each step).
#
# At these commits the code has a learning rate of 3e-4, a tenth of it for the critic,
# beta1 0, exponential decay and no label smoothing (defaults of src/options.py at
# 9411f30760cf), two generator steps per critic step, and other initial weights
# (variance_scaling_initializer with scale 1; He et al. have 2). Older versions have
# beta1 0.5, one learning rate for both networks, one dropout block on CIFAR-10 and a
# deeper critic on Places365.
#
# Paper and code contradict themselves and each other about BatchNorm. It follows each
# convolution of the encoder (section 3.1) and "all convolution layers" of the critic
# (3.2), but not the first layers nor the generator's last (3.3). In [code] the
# generator's first layer has it, and the critic's first and last have not: that is the
# default here. `--set generator.first_norm=false` follows section 3.3. BatchNorm uses
# running statistics in inference here, and the statistics of the test batch in [code]
# (src/ops.py at 5b924498b9f4).
def nazeri_gan() -> Recipe:
    r"""The conditional DCGAN of Nazeri et al. (section 3.2) on CIFAR-10.

    The reported scores are the mean absolute error (MAE) and two accuracies, over L, a
    and b. The paper calls them "training results" and does not name the images: they
    are read as those of the test split, CIFAR-10's test batch, which the authors' code
    scores. The grayscale baseline has an MAE of 5.63 and accuracies of 26.4 % with a
    tolerance of 2 %, and 55.8 % with 5 %. Cost: not given; 200 epochs are 10,000,000
    images of 32 px.

        accelerate launch -m launch.train --recipe nazeri_gan \
            --shards SHARDS --run runs/nazeri_gan

    Without a held-out split in the shards, the learning rates do not fall.
    """
    # section 3.3, for both networks; beta2 is not given, 0.999 is Adam's default
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        name="nazeri_gan",
        # MAE is 100 x the mean absolute difference of three channels, each in [-1, 1],
        # an interpretation, because the paper gives no unit. Accuracy is that of
        # equation 10. Baselines, measured on CIFAR-10's 10,000 test images, are close
        # to these scores. The grayscale baseline with the true L has an MAE of 5.63 and
        # accuracies of 26.4 and 55.8. The median ab of the training split, (0, 4), has
        # 5.49, 23.9 and 57.3.
        headline=reported("table 1", mae=5.1, accuracy_2=24.1, accuracy_5=65.5),
        paper="nazeri",
        size=32,  # section 4; CIFAR-10 has this size, so no `fit`
        batch_size=128,  # table 1
        epochs=200,  # table 1
        # `FullyConvolutionalConfig` comments on BatchNorm in the first layer and on the
        # skip connections, where paper and [code] differ.
        generator=FullyConvolutionalConfig(  # section 3.1, plan from [code]: 16,654,851 parameters
            base_channels=64, levels=4, first_width=2, dropout=0.5, dropout_blocks=2
        ),
        critic=SameCriticConfig(  # section 3.2, plan from [code]: 2,767,553 parameters
            base_channels=64, inputs=4
        ),
        generator_adam=adam,
        critic_adam=adam,
        objective=Objective(
            adversarial=BCE(real_label=0.9),  # equations 5 and 8; one-sided smoothing: section 3.3
            adversarial_weight=constant(1.0),  # equation 7
            # equation 7; lambda: section 3.3. The equation has an l1 norm, which is a
            # sum: here, as in [code], it is a mean over pixels and L, a and b.
            reconstruction=(L1(weight=constant(100.0)),),
        ),
        # The learning rates are "manually decayed ... whenever the loss function
        # started to plateau" (section 3.3), without a number. Here they fall to a tenth
        # after 30 validations without a lower L1 of a and b (the loss has L too).
        plateau=Plateau(patience=30, factor=0.1),  # factor: section 3.3; patience: not given
        # The grayscale input is the L of Lab. In [code] it is the luma of TensorFlow's
        # rgb_to_grayscale, so L had to be predicted there. The scaling, L / 50 - 1 and
        # ab / 110, is that of [code]: the paper gives none.
        codec=LabCodec(),  # section 3.1: "3 with L*a*b* color space"
        flip=0.5,  # [code]
        # Section 2.1 has no noise, G(0_z|x), but section 3.2 has noise "in the form of
        # dropout", which is followed. Isola et al. 2017, whom section 3.2 follows, keep
        # it active at test time: `colortrain evaluate --dropout both` prints the scores
        # of both.
        test_dropout=False,  # [code]
        evaluate_every=391,  # one epoch of 50,000
        checkpoint_every=391,
    )


def nazeri_unet_l2() -> Recipe:
    r"""Nazeri et al.'s baseline: the U-Net of `nazeri_gan`, trained with L2 alone.

    (Section 3.1 of the paper.) L2 is the mean squared error over all three channels.
    There is no critic and no dropout.

    The reported scores are measured as in `nazeri_gan`. All three are worse than the
    scores of the grayscale baseline. Cost: less than `nazeri_gan`.

        accelerate launch -m launch.train --recipe nazeri_unet_l2 \
            --shards SHARDS --run runs/nazeri_unet_l2
    """
    gan = nazeri_gan()
    return dataclasses.replace(
        gan,
        name="nazeri_unet_l2",
        # the grayscale baseline has the true L, whereas this network predicts L
        headline=reported("table 1", mae=7.9, accuracy_2=13.7, accuracy_5=37.2),
        # no dropout: section 3.1 mentions none, and in `nazeri_gan` it is the noise of
        # the GAN
        generator=FullyConvolutionalConfig(  # section 3.1
            base_channels=64, levels=4, first_width=2, dropout=0.0, dropout_blocks=0
        ),
        critic=None,
        objective=Objective(
            adversarial_weight=constant(0.0),
            reconstruction=(L2(weight=constant(1.0)),),  # equation 9
        ),
    )


def nazeri_gan_places() -> Recipe:
    r"""The conditional DCGAN of Nazeri et al. (section 3.2) on Places365, 256 px.

    The reported scores are computed as in `nazeri_gan`. Cost: not given; 20 epochs of
    1.8 million images (section 5) are 2,250,000 steps. The paper calls the result "not
    as well-trained as the CIFAR-10 counterpart".

        accelerate launch -m launch.train --recipe nazeri_gan_places \
            --shards SHARDS --run runs/nazeri_gan_places
    """
    return dataclasses.replace(
        nazeri_gan(),
        name="nazeri_gan_places",
        headline=reported("table 1", mae=7.5, accuracy_2=18.3, accuracy_5=47.3),
        # Section 4. How images become square is not given; [code] reads Places365's
        # version of 256 px, whose images are square already (src/dataset.py at commit
        # 01136ad32c53).
        size=256,
        batch_size=16,  # table 1
        epochs=20,  # table 1
        # Dropout is in the first three decoder blocks, as in Isola et al. 2017, whom
        # section 3.2 follows, and in one version of [code] (0000bbd3802c); that of the
        # layer plan has none.
        generator=FullyConvolutionalConfig(  # figure 2, plan from [code]: 42,023,811 parameters
            base_channels=64, levels=7, first_width=1, dropout=0.5, dropout_blocks=3
        ),
        evaluate_every=5000,  # 22 per epoch of 1.8 million
        checkpoint_every=5000,
    )
