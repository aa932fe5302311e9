"""Valentini and Nagaro Quiroz: pix2pix and Wasserstein cGANs on ImageNet.

The paper is "Image Recoloring with Wasserstein Conditional Adversarial Networks" by
Valentini and Nagaro Quiroz, University of Padova. Comments on fields cite its sections,
and say which values are not given there.
"""

from __future__ import annotations

import dataclasses

from colortrain.headline import reported
from colortrain.lab import SymmetricCodec
from colortrain.losses.adversarial import BCE, Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.shallow_unet import ShallowUNetConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant

# The paper re-implements pix2pix (Isola et al. 2017), then adds a gradient penalty and
# thicker U-Nets. What it does not specify is taken from Isola et al., except the batch
# size, because theirs varies with the data.
_PLAIN = ShallowUNetConfig(
    base_channels=64,  # not given; Isola et al., section 6.1.1
    depth=4,  # section VI-A: 2, 3 and 4; section VI-B: 4 "for further testing"
    thick_layers=0,  # section VI-A: the original model
)
_CRITIC = PatchCriticConfig(
    base_channels=64,  # not given; Isola et al., section 6.1.2
    # not given; 70-pixel patch of Isola et al., section 6.1.2; other sizes are future
    # work (section VII): 0, 1 and 5 for 1, 16 and 286 pixels
    strided_layers=3,
    norm="batch",  # section III: none in the first and last block
)


def valentini_cgan() -> Recipe:
    r"""Valentini and Nagaro Quiroz's version of pix2pix, with a plain U-Net.

    (Sections III and VI-A of the paper.) Its generated images have bright spots at the
    centre (figure 7), which the losses do not show (section VII). The paper uses about
    10,000 photographs for training and 3,000 for validation, of 1,000 classes, at 256
    px (section V). Which images is not given. This command draws some at random from a
    folder IMAGENET that has the folders train and val:

        colortrain shards build IMAGENET SHARDS --size 256 --fit squash \
            --splits source --take train=10000,val=3000
        accelerate launch -m launch.train --recipe valentini_cgan \
            --shards SHARDS --run runs/valentini_cgan

    For figure 5, run it again with `--set generator.depth=2` and `3`. Which loss the
    figures show, and of which split, is not given.
    """
    return Recipe(
        name="valentini_cgan",
        headline=reported(
            "figure 5",
            "no numbers, only curves: of depths 2, 3 and 4 the deeper is the more stable",
        ),
        paper="valentini",
        size=256,  # section V
        fit="squash",  # section V: "resized to the desired input size"
        # not given; that of Nampouri et al. (section 5.2), who have about as many
        # photographs of the same size
        batch_size=16,
        # not given; Isola et al., section 6.2, for a few thousand photographs
        epochs=200,
        generator=_PLAIN,
        critic=_CRITIC,
        # no schedule is mentioned: the rates stay constant
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # not given; Isola et al., section 3.3
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # not given; Isola et al., section 3.3
        objective=Objective(
            # In equation 3 both networks minimise, although the critic should maximise.
            # Section IV labels real images 0 and generated ones 1, which is the reverse
            # of the usual labels. For the critic the two cancel: here, as usual, real
            # images have the label 1 and the critic maximises, which is equivalent. The
            # paper's generator minimises log(1 - D): here it maximises log D, as in
            # Isola et al. (section 3.3). Section III averages patch responses before
            # the loss: here, as in the code of Isola et al., the loss is computed per
            # patch and then averaged (for a linear critic the two are equal).
            adversarial=BCE(),  # equation 3, without a factor of one half
            adversarial_weight=constant(1.0),  # equation 3
            # literally, the weight in equation 3 is 1; here it is that of Isola et al.,
            # section 4.2. Equation 2 has an L1 norm, read as a mean. Section III speaks
            # of "proximity to the input": read as to the target, as in equation 2.
            reconstruction=(L1(weight=constant(100.0)),),
        ),
        codec=SymmetricCodec(),  # section V: Lab; scaling not given; this one fits tanh
        flip=0.5,  # not given; Isola et al. flip images (section 6.2)
        test_dropout=False,  # section III: G: x -> y, no noise
    )


def valentini_wgan() -> Recipe:
    r"""The Wasserstein GAN of Valentini and Nagaro Quiroz, with a thick U-Net.

    (Sections IV and VI-B of the paper.) The data are as in `valentini_cgan`.

        accelerate launch -m launch.train --recipe valentini_wgan \
            --shards SHARDS --run runs/valentini_wgan

    For figures 8 and 9, run it again with `--set generator.depth=2` and `3`. Their
    penalty weight is not given: it is 0.3 here. Compared with figure 5, both network
    and loss change. For figure 11, set the weight to 0 and 0.1 with
    `--set objective.penalties.0.weight=0` and `0.1`; with 0, expect it to diverge. The
    paper speaks of "three different levels" of this weight, but names only 0.1 and 0.3
    (section VI-C): 0 is assumed to be the third.
    """
    recipe = valentini_cgan()
    return dataclasses.replace(
        recipe,
        name="valentini_wgan",
        headline=reported(
            "figures 8, 9 and 11",
            "no numbers, only curves: lower losses than the plain U-Net; depth 4 slightly better "
            "than 3, and 2 noisy; penalties of 0.1, 0.3 and a third weight, read as 0, differ "
            "little in loss, the strongest has the best images",
        ),
        # Section VI-A: "a triple layer before and after the bottleneck". Section VI-B
        # has "thicker encoding/decoding layers" and speaks of "increasing the thickness
        # of layers", perhaps of all: `--set generator.thick_at=levels`.
        generator=dataclasses.replace(_PLAIN, thick_layers=3),
        # Section III puts BatchNorm in the critic. It would make each image's gradient
        # depend on every image of the batch (Gulrajani et al. 2017, section 4, advise
        # against it), and its synchronised form has no second derivative. Therefore
        # InstanceNorm is used, also with the other two weights of the penalty, 0 and
        # 0.1. There is one critic step per generator step, as the paper gives no other
        # number.
        critic=dataclasses.replace(_CRITIC, norm="instance"),
        objective=dataclasses.replace(
            recipe.objective,
            # The text describes a WGAN: its loss is "without a strict lower bound", and
            # its scores are small for one kind of images and large for the other
            # (sections I, IV). That is this linear critic. Equation 8 keeps the
            # logarithms: that is `valentini_wgan_literal`. The paper's scores are small
            # for real images, here they are large: the sign of the critic is reversed,
            # which is equivalent.
            adversarial=Wasserstein(),  # equation 4
            # Equation 5 takes the norm of the gradient at an interpolated y; y stands
            # for ab (equation 6), since L is the same for both images. With a penalty
            # of weight 0 nothing constrains a linear critic.
            # The gradient is that of the mean over the patches, because D is "averaging
            # all responses" (section III).
            penalties=(  # equation 7; section VI-C names the weights 0.1 and 0.3
                GradientPenalty(  # weight 0.3: "with apparently higher quality"
                    weight=constant(0.3), points="interpolated", wrt="colour", target=1.0
                ),
            ),
        ),
    )


def valentini_wgan_literal() -> Recipe:
    r"""The thick U-Net of Valentini and Nagaro Quiroz, with equation 8 as published.

    The adversarial losses are cross-entropies, and the gradient penalty is applied to
    the critic's logits. Everything else is as in `valentini_wgan`.

        accelerate launch -m launch.train --recipe valentini_wgan_literal \
            --shards SHARDS --run runs/valentini_literal

    For figure 11, run it again with `--set objective.penalties.0.weight=0` and `0.1`.
    """
    recipe = valentini_wgan()
    # The interpretations of equation 3 in `valentini_cgan` apply to equation 8 too:
    # signs, labels, the generator's log D, the weight of L1.
    objective = dataclasses.replace(recipe.objective, adversarial=BCE())  # equation 8
    return dataclasses.replace(recipe, name="valentini_wgan_literal", objective=objective)
