"""arun: "Image Colorization using Conditional Wasserstein GANs" (Arun): a ResU-Net and a Wasserstein critic with two
penalties, on 5,000 photographs of MIRFLICKR-25k."""

from __future__ import annotations

import dataclasses

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
    """Equation 6 as it stands: the generator learns from L1 alone, beside a critic that trains and is not heard.

    Headline (table I): IS 4.3125 +- 1.8372 (real photographs 4.3412 +- 1.7963), "FID" 13.1076. That is not FID but
    2 |mu - mu'|^2 + |sigma - sigma'|^2 with element-wise sigma (section II-F), `fid_diagonal` here. Protocol: the
    same 5,000 photographs of 224 px to train and to test (section II-B), so the figures say nothing of others.
    Cost: 750,000 steps of one photograph each; no hardware or hours are given.

        accelerate launch -m launch.train --recipe arun_wgan_gp --shards SHARDS --run runs/arun_wgan_gp

    Contradictions, and what is read. The abstract gives the generator an adversarial loss, equation 6 none
    ("implicitly benefits" from the critic cannot be: no gradient reaches it): here equation 6, in
    `arun_wgan_gp_adversarial` the abstract. Equations 3-5 pull the critic's gradient norm to 1 and to 0 at the same
    points: their sum is least, 5, at 1/2, so the critic's scores are half a Wasserstein distance. Equation 1 decodes
    ab by 256 what was encoded by 255: we invert. ResBlocks have an "identity shortcut" between different numbers of
    channels: read as a 1x1 projection.

    Batch 1 with BatchNorm: in training each photograph is normalised by its own statistics, in colouring by running
    ones, so the network scored is not the one trained; `--set batch_size=16` narrows that. On N processes batch_size
    must be a multiple of N.
    """
    return Recipe(
        name="arun_wgan_gp",
        paper="arun",
        size=224,  # II-B
        batch_size=1,  # II-G
        epochs=150,  # II-G
        generator=ResUNetConfig(
            base_channels=64, levels=3, dropout=0.2
        ),  # II-C, figure 1: 8,216,194
        critic=GlobalCriticConfig(base_channels=64, blocks=4),  # II-D, figure 2: 2,757,057
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # II-G
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.9)),  # II-G
        objective=Objective(
            adversarial=Wasserstein(),  # equation 2
            adversarial_weight=_NO_ADVERSARIAL,  # equation 6
            reconstruction=(L1(weight=constant(100.0)),),  # equation 6
            penalties=(
                GradientPenalty(
                    weight=constant(10.0), points="interpolated", wrt="colour", target=1.0
                ),  # equation 3
                GradientPenalty(
                    weight=constant(10.0), points="interpolated", wrt="colour", target=0.0
                ),  # equation 4
            ),  # weights: equation 5
        ),
        codec=UnitCodec(),  # II-B, equation 1
        n_critic=1,  # II-E: "alternating"
        flip=0.0,  # II-B names shuffling alone
        test_dropout=False,  # II-C item 5: dropout is there against overfitting
        evaluate_every=5000,  # ours: once an epoch
        checkpoint_every=5000,  # ours
    )


def arun_wgan_gp_adversarial() -> Recipe:
    """The abstract's reading: the generator minimises 100 L1 minus the mean score of its pictures.

    Headline (table I): IS 4.3125 +- 1.8372, "FID" 13.1076, as of `arun_wgan_gp`, where all else is said: the paper has
    one table for both readings. It gives the adversarial term no weight; we take 1, as in the objective of Isola et
    al. 2017 (equation 4), whose 100 for L1 the paper takes too.

        accelerate launch -m launch.train --recipe arun_wgan_gp_adversarial --shards SHARDS --run runs/arun_adversarial
    """
    recipe = arun_wgan_gp()
    objective = dataclasses.replace(recipe.objective, adversarial_weight=_ADVERSARIAL)
    return dataclasses.replace(recipe, name="arun_wgan_gp_adversarial", objective=objective)
