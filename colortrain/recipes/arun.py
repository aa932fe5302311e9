"""Arun: a residual U-Net and a Wasserstein critic with two penalties.

The paper is "Image Colorization using Conditional Wasserstein GANs" by Arun. Its
networks are trained on 5,000 photographs of MIRFLICKR-25k. Comments on fields cite its
sections.
"""

from __future__ import annotations

import dataclasses

from colortrain.headline import reported
from colortrain.lab import UnitCodec
from colortrain.losses.adversarial import Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant

# The paper gives the adversarial term no weight. Here it is 1, as in the objective of
# Isola et al. 2017 (equation 4), from whom the paper also takes the weight 100 of L1.
_NO_ADVERSARIAL, _ADVERSARIAL = constant(0.0), constant(1.0)


def arun_wgan_gp() -> Recipe:
    r"""The recipe of Arun, following its equation 6: L1 trains the generator.

    The critic is trained too, but has no influence on the generator.

    The reported "FID" is not FID but the variant `fid_diagonal` (section II-F).
    Training and test use the same 5,000 photographs of 224 px (section II-B), so the
    reported values do not describe unseen images. The deviation of the inception score
    is larger than random splits of any size gave in our tests (docs/METRICS.md).

    Which 5,000 photographs is not given. Grayscale ones are kept: no `--drop-grey`.
    Kaggle's .npy arrays of Lab, as the paper uses, can be read too (docs/DATASETS.md).

    Cost: 750,000 steps of one photograph each; the paper gives neither hardware nor
    hours.

        colortrain shards build MIRFLICKR SHARDS --size 224 --fit squash \
            --splits train=5000,val=1000
        accelerate launch -m launch.train --recipe arun_wgan_gp \
            --shards SHARDS --run runs/arun_wgan_gp
        colortrain evaluate --run runs/arun_wgan_gp --shards SHARDS --split train

    BatchNorm behaves differently in training and in inference; `--set batch_size=16`
    reduces the difference. On N processes batch_size must be a multiple of N.
    """
    return Recipe(
        name="arun_wgan_gp",
        headline=reported(
            "table I",
            "IS +- 1.8372, of real photographs 4.3412 +- 1.7963; Inception weights, feature "
            "layer and number of splits not given",
            inception_score=4.3125,
            fid_diagonal=13.1076,
        ),
        paper="arun",
        size=224,  # section II-B
        fit="squash",  # section II-B: "each resized to 224x224 pixels"
        # With BatchNorm, each photograph is normalised by its own statistics in
        # training, and by running averages in inference.
        batch_size=1,  # section II-G
        epochs=150,  # section II-G
        # The paper has an "identity shortcut" between different numbers of channels;
        # here it is a 1x1 projection. Whether the bridge is the block of 512 channels
        # or follows it, and whether dropout is of channels, is open: see `own_bridge`
        # and `dropout_unit` of the generator.
        generator=ResUNetConfig(  # section II-C, figure 1; 8,216,194 parameters, counted here
            base_channels=64, levels=3, dropout=0.2
        ),
        critic=GlobalCriticConfig(  # section II-D, figure 2; 2,757,057 parameters, counted here
            base_channels=64, blocks=4
        ),
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # section II-G
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # section II-G
        objective=Objective(
            adversarial=Wasserstein(),  # equation 2
            # The abstract gives the generator an adversarial loss, but equation 6 has
            # none, so no gradient of the critic reaches the generator, which therefore
            # cannot "implicitly benefit" from the critic. `arun_wgan_gp_adversarial`
            # follows the abstract.
            adversarial_weight=_NO_ADVERSARIAL,  # equation 6
            # the norm of equation 6 is read as a mean over pixels, a and b: see
            # `channels` of the loss
            reconstruction=(L1(weight=constant(100.0)),),  # equation 6
            # Equations 3-5 pull the norm of the critic's gradient to 1 and to 0 at the
            # same points. The sum of these two penalties has its minimum at a norm of
            # 1/2, where it is 5. So the critic's scores are about half a Wasserstein
            # distance W (its term in equation 5 moves the minimum to 1/2 + W / 40).
            penalties=(  # weights: equation 5
                GradientPenalty(  # equation 3
                    weight=constant(10.0), points="interpolated", wrt="colour", target=1.0
                ),
                GradientPenalty(  # equation 4
                    weight=constant(10.0), points="interpolated", wrt="colour", target=0.0
                ),
            ),
        ),
        # The paper's conversion to tensors is read as a division of 8-bit values by
        # 255. Its decoding has 256, an error of up to 1.0 (at ab = 127; 0.5 at gray):
        # the codec uses the exact inverse of the encoding.
        codec=UnitCodec(),  # section II-B, equation 1
        n_critic=1,  # section II-E: "alternating"
        flip=0.0,  # section II-B mentions shuffling only
        test_dropout=False,  # section II-C item 5: dropout is against overfitting
        evaluate_every=5000,  # not given; once per epoch
        checkpoint_every=5000,  # not given
    )


def arun_wgan_gp_adversarial() -> Recipe:
    r"""The recipe of Arun, following its abstract: L1 and adversarial loss.

    The generator minimises 100 * L1 minus the mean score that the critic gives its
    images. Everything else is as in `arun_wgan_gp`, including the reported scores.

        accelerate launch -m launch.train --recipe arun_wgan_gp_adversarial \
            --shards SHARDS --run runs/arun_adversarial
    """
    recipe = arun_wgan_gp()
    objective = dataclasses.replace(recipe.objective, adversarial_weight=_ADVERSARIAL)
    # the reported scores are the same: the paper has one table for both objectives
    return dataclasses.replace(recipe, name="arun_wgan_gp_adversarial", objective=objective)
