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

_NO_ADVERSARIAL, _ADVERSARIAL = constant(0.0), constant(1.0)


def arun_wgan_gp() -> Recipe:
    r"""The recipe of Arun, following its equation 6: L1 trains the generator.

    The critic is trained too, but has no influence on the generator.

    The reported "FID" is not FID but 2 |mu - mu'|^2 + |sigma - sigma'|^2 with
    element-wise sigma (section II-F), called `fid_diagonal` here. Protocol: training
    and test use the same 5,000 photographs of 224 px (section II-B), so the values do
    not describe unseen images. Cost: 750,000 steps of one photograph each; the paper
    gives neither hardware nor hours.

        accelerate launch -m launch.train --recipe arun_wgan_gp \
            --shards SHARDS --run runs/arun_wgan_gp

    Contradictions in the paper, and how they are resolved. The abstract gives the
    generator an adversarial loss, but equation 6 has none, so no gradient of the critic
    reaches the generator, which therefore cannot "implicitly benefit" from the critic.
    This recipe follows equation 6, and `arun_wgan_gp_adversarial` the abstract.
    Equations 3-5 pull the norm of the critic's gradient to 1 and to 0 at the same
    points. The sum of these two penalties has its minimum at a norm of 1/2, where it is
    5. So the critic's scores are half a Wasserstein distance. Equation 1 encodes ab
    with 255 and decodes it with 256: the codec uses the exact inverse of the encoding.
    The residual blocks have an "identity shortcut" between different numbers of
    channels: a 1x1 projection is used.

    Batch size 1 with BatchNorm: in training each photograph is normalised by its own
    statistics, in inference by running averages, so the network behaves differently
    when it is scored; `--set batch_size=16` reduces the difference. On N processes
    batch_size must be a multiple of N.
    """
    return Recipe(
        name="arun_wgan_gp",
        headline=reported(
            "table I",
            "IS +- 1.8372, of real photographs 4.3412 +- 1.7963",
            inception_score=4.3125,
            fid_diagonal=13.1076,
        ),
        paper="arun",
        size=224,  # section II-B
        batch_size=1,  # section II-G
        epochs=150,  # section II-G
        generator=ResUNetConfig(  # section II-C, figure 1: 8,216,194 parameters
            base_channels=64, levels=3, dropout=0.2
        ),
        critic=GlobalCriticConfig(  # section II-D, figure 2: 2,757,057 parameters
            base_channels=64, blocks=4
        ),
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # section II-G
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # section II-G
        objective=Objective(
            adversarial=Wasserstein(),  # equation 2
            adversarial_weight=_NO_ADVERSARIAL,  # equation 6
            reconstruction=(L1(weight=constant(100.0)),),  # equation 6
            penalties=(  # weights: equation 5
                GradientPenalty(  # equation 3
                    weight=constant(10.0), points="interpolated", wrt="colour", target=1.0
                ),
                GradientPenalty(  # equation 4
                    weight=constant(10.0), points="interpolated", wrt="colour", target=0.0
                ),
            ),
        ),
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
    images. Everything else is documented in `arun_wgan_gp`. The scores reported there
    apply here too, because the paper has one table for both versions. The paper gives
    the adversarial term no weight. Here it is 1, as in the objective of Isola et al.
    2017 (equation 4), from whom the paper also takes the weight 100 of L1.

        accelerate launch -m launch.train --recipe arun_wgan_gp_adversarial \
            --shards SHARDS --run runs/arun_adversarial
    """
    recipe = arun_wgan_gp()
    objective = dataclasses.replace(recipe.objective, adversarial_weight=_ADVERSARIAL)
    return dataclasses.replace(recipe, name="arun_wgan_gp_adversarial", objective=objective)
