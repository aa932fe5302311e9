"""drouilhet: "Deep-learning: Colorization of Images" (Drouilhet and L'Herminé, 2025): one deep U-Net on COCO, taught
by a soft-label GAN, by WGAN-GP under a falling L1, and by a ProGAN hybrid with a VGG loss.

The paper names no batch size, momenta, starting weights, augmentation or number of photographs: Isola et al.'s Adam
momenta and start are taken, nampouri's batch of 16 (the same data at the same size), and no augmentation.
"""

from __future__ import annotations

import dataclasses

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
    """The standard GAN of sections 1.3, 3 and 4: two-sided soft labels, L1 weighted by the rarity of colours.

    Headline (table 3): PSNR 19.63 dB, VGG 4.2968. Protocol: COCO, 256 px, PSNR of RGB in [0, 1] (section 5); how it
    is averaged and over how many photographs is not said. A grey picture scores about 23.8 dB as the mean of
    pictures, 20.1 dB pooled, so read it beside grey. Cost: not given (Colab, section 7.5.3).

        accelerate launch -m launch.train --recipe drouilhet_gan --shards SHARDS --run runs/drouilhet_gan

    Contradictions, and what is read. 27 epochs (section 4, figure 1) or 10 (table 3): 27, whose curve ends at the
    same 19.63 dB. Nearest-neighbour upsampling (section 3.1) or transposed convolutions (table 2): the text. Weights
    over the maximum, at least .5 (section 1.3.3): with one empty ab bin that makes every colour weigh .5, so the
    maximum is taken over colours that occur. That still leaves nearly every pixel at .5 (`RebalancedL1` has figures);
    `--set objective.reconstruction.0.mode=smoothed` is Zhang et al.'s and does rebalance, `=literal` is the letter,
    which the paper's own losses suggest it ran. A critic loss of .6 to .7 (section 4.1) can
    only be the mean over real and fake, whose floor is .50 with these labels: hence the factor of one half.
    """
    return Recipe(
        name="drouilhet_gan",
        paper="drouilhet",
        size=256,  # 3.1
        batch_size=16,  # not given: nampouri's
        epochs=27,  # 4
        generator=DeepUNetConfig(base_channels=64, levels=4, norm="batch"),  # 3.1: 15,674,818
        critic=SquareCriticConfig(
            base_channels=64, depth=4, norm="batch"
        ),  # 3.1: 16x16 map; 4 of 3, 4, 5
        generator_adam=Adam(lr=4e-4, betas=(0.5, 0.999)),  # 4.1; betas not given: Isola's
        critic_adam=Adam(lr=5e-5, betas=(0.5, 0.999)),  # 4.1, 1.3.1
        objective=Objective(
            adversarial=BCE(
                real_label=0.8, fake_label=0.2, critic_factor=0.5
            ),  # 1.3.2, 3.2; generator's target 1
            adversarial_weight=constant(1.0),  # 3.2
            reconstruction=(
                RebalancedL1(weight=constant(70.0), mode="populated", largest=5.0, least=0.5),
            ),  # 1.3.3-4
        ),
        codec=SymmetricCodec(),  # 3.1: normalised to [-1, 1]
        flip=0.0,  # none named
    )


def drouilhet_wgan_gp() -> Recipe:
    """The Wasserstein GAN of sections 6 and 7: InstanceNorm critic, five steps to one, L1 weighted 70, 10, then 30.

    Headline (table 3): PSNR 21.41 dB, VGG 4.1719; protocol as of `drouilhet_gan`, and grey scores about 23.8 dB as
    the mean of pictures, 20.1 dB pooled. Cost: over 10 hours on Colab (section 7.5.3).

        accelerate launch -m launch.train --recipe drouilhet_wgan_gp --shards SHARDS --run runs/drouilhet_wgan_gp

    Contradictions, and what is read. L1's weight falls at epoch 19 (section 7.5) or 18 (7.6, 7.7): 19, since "Epochs
    0-18" has it in the plan. 27 epochs (table 3, 7.6) or 30 (7.5.3): 27. The penalty's weight is not given: 10, as
    Gulrajani et al. 2017; nor new learning rates: section 7 lists what changed, so the GAN's stay. The penalty's
    gradient is with respect to the "image pair" (7.3), so L too.
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_wgan_gp",
        critic=SquareCriticConfig(base_channels=64, depth=4, norm="instance"),  # 7.1.1
        objective=Objective(
            adversarial=Wasserstein(),  # equation 2, 7.2
            adversarial_weight=constant(1.0),  # 3.2
            reconstruction=(
                RebalancedL1(weight=Schedule(((0, 70.0), (19, 10.0), (26, 30.0)))),
            ),  # 7.5.1-3
            penalties=(
                GradientPenalty(
                    weight=constant(10.0), points="interpolated", wrt="picture", target=1.0
                ),  # equation 4
            ),
        ),
        n_critic=5,  # 7.4.1
    )


def drouilhet_progan() -> Recipe:
    """The ProGAN hybrid of section 9: PixelNorm in the generator, minibatch deviation in the critic, VGG for L1.

    Headline (table 3): PSNR 20.92 dB, VGG 3.3715; protocol as of `drouilhet_gan`, and grey scores about 23.8 dB as
    the mean of pictures, 20.1 dB pooled. Cost: not given.

        accelerate launch -m launch.train --recipe drouilhet_progan --shards SHARDS --run runs/drouilhet_progan

    Downloads torchvision's vgg16-397923af.pth (528 MB) once; without a network put it where the error says, or try
    the machinery with `--set objective.reconstruction.0.weights=random`.

    Contradictions, and what is read. Nothing grows, whatever the name says: one size, 256 px. A peak of 21.12 dB
    (section 11) or 20.92 (table 3): the table. Labels, rates and the critic's BatchNorm are not said to change: soft
    labels stay (a critic loss of .542, section 11, lies above their floor of .50), and so does the rest. "Minibatch"
    is what one process holds: scores change with batch_size / processes. PixelNorm leaves a convolution's mean, so
    the convolutions before it have biases.
    """
    return dataclasses.replace(
        drouilhet_gan(),
        name="drouilhet_progan",
        epochs=20,  # table 3
        generator=DeepUNetConfig(
            base_channels=64, levels=4, norm="pixel"
        ),  # 9.1, equation 5: 15,671,874
        critic=SquareCriticConfig(
            base_channels=64, depth=4, norm="batch", minibatch_stddev=True
        ),  # 9.2
        objective=Objective(
            adversarial=BCE(real_label=0.8, fake_label=0.2, critic_factor=0.5),  # 3.2, equation 7
            adversarial_weight=constant(1.0),  # equation 7
            reconstruction=(
                Perceptual(weight=constant(100.0), weights="imagenet"),
            ),  # equations 6-7, 9.3
        ),
    )
