"""valentini: "Image Recoloring with Wasserstein Conditional Adversarial Networks" (Valentini, Nagaro Quiroz, University
of Padova): pix2pix, then a gradient penalty and thicker U-Nets, on 10,000 photographs of ImageNet.

The paper names no optimizer, rate, batch, length, width or weight of L1. Isola et al. 2017, which it re-implements,
fills those in (but the batch, which Isola changes with the data); each such number says so.
"""

from __future__ import annotations

import dataclasses

from colortrain.lab import SymmetricCodec
from colortrain.losses.adversarial import BCE, Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.shallow_unet import ShallowUNetConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant

_PLAIN = ShallowUNetConfig(
    base_channels=64,  # absent; Isola 6.1.1
    depth=4,  # 2, 3 and 4 in VI-A; 4 chosen "for further testing" (VI-B)
    thick_layers=0,  # VI-A: the original model
)
_CRITIC = PatchCriticConfig(
    base_channels=64,  # absent; Isola 6.1.2
    strided_layers=3,  # absent; Isola's 70-pixel patch (6.1.2)
    norm="batch",  # III: none in the first and last block
)


def valentini_cgan() -> Recipe:
    """The re-implementation of Isola's model (sections III and VI-A), plain U-Net, no penalty.

    Headline: no numbers, only curves (figure 5): the deeper of 2, 3 and 4 the steadier. Colours show bright spots at
    the centre (figure 7) that the losses do not (section VII). Protocol: about 10,000 photographs to train on and
    3,000 to validate, of 1,000 classes, 256 px (section V).

        accelerate launch -m launch.train --recipe valentini_cgan --shards SHARDS --run runs/valentini_cgan
        (figure 5: the same with --set generator.depth=2, and 3)

    Contradictions, and what is read. Equation 3 has both networks minimise what the critic must maximise, and section
    IV labels real 0 and fake 1: the game is the same, ours labels real 1. Its generator minimises log(1 - D): read as
    maximising log D, as Isola does (section 3.3). Equation 3 gives L1 no weight: read as Isola's 100 (`--set
    objective.reconstruction.0.weight=1` is the letter). Section III averages patch responses before the loss:
    read as Isola's code, the loss of each patch, then the mean (for a linear critic the two are one).
    """
    return Recipe(
        name="valentini_cgan",
        paper="valentini",
        size=256,  # V
        batch_size=16,  # absent; nampouri's (5.2) for a U-Net and this critic at this size
        epochs=200,  # absent; Isola's for sets of some thousand photographs (6.2)
        generator=_PLAIN,
        critic=_CRITIC,
        generator_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # absent; Isola 3.3
        critic_adam=Adam(lr=2e-4, betas=(0.5, 0.999)),  # absent; Isola 3.3
        objective=Objective(
            adversarial=BCE(),  # equation 3, which has no half
            adversarial_weight=constant(1.0),  # equation 3
            reconstruction=(L1(weight=constant(100.0)),),  # equation 2; weight absent: Isola 4.2
        ),
        codec=SymmetricCodec(),  # V: Lab; its scaling is absent: what tanh can reach
        flip=0.5,  # absent; Isola mirrors (6.2)
        test_dropout=False,  # III: G: x -> y, no noise
    )


def valentini_wgan() -> Recipe:
    """The Wasserstein reading of sections IV and VI-B: a linear critic and a gradient penalty, the thick U-Net.

    Headline: no numbers, only curves (figures 8, 9 and 11): lower losses than the plain U-Net, depth 4 a little better
    than 3, 2 noisy; penalties of 0, 0.1 and 0.3 differ little in loss, the strongest has the best pictures.
    Protocol as `valentini_cgan`.

        accelerate launch -m launch.train --recipe valentini_wgan --shards SHARDS --run runs/valentini_wgan
        (figures 8 and 9: --set generator.depth=2, and 3; figure 11: --set objective.penalties.0.weight=0, and .1)

    Contradictions, and what is read. The text makes the GAN a WGAN whose loss is "without a strict lower bound" and
    whose scores are small for one side and large for the other (sections I, IV): that is this linear critic; equation
    8 keeps the logarithms: `valentini_wgan_literal`. Equation 5 takes the norm of the gradient at mixed y, which is
    ab (equation 6); L is the same on both sides. With weight 0 a linear critic is held by nothing: expect it to
    run away. BatchNorm, which section III puts in the critic, would let every picture of a batch into the gradient
    of each (Gulrajani et al. 2017, section 4, advise against it), and its synchronised form has no second derivative:
    InstanceNorm here, in all three weights. One critic step per generator step: no other number is given.
    """
    recipe = valentini_cgan()
    return dataclasses.replace(
        recipe,
        name="valentini_wgan",
        generator=dataclasses.replace(_PLAIN, thick_layers=3),  # VI-A: "a triple layer"
        critic=dataclasses.replace(_CRITIC, norm="instance"),
        objective=dataclasses.replace(
            recipe.objective,
            adversarial=Wasserstein(),  # equation 4
            penalties=(
                GradientPenalty(
                    weight=constant(0.3), points="interpolated", wrt="colour", target=1.0
                ),
            ),  # equation 7; 0, .1 and .3 in VI-C, the strongest "with apparently higher quality"
        ),
    )


def valentini_wgan_literal() -> Recipe:
    """Equation 8 as it stands: cross-entropy and a gradient penalty on the logits, the thick U-Net.

    Headline: no numbers, only curves (figures 8, 9 and 11), which this may be as well as `valentini_wgan`; all else as
    there. What is read of equation 3 in `valentini_cgan` (signs, labels, the generator's log D, the weight of L1) is
    read of equation 8 too.

        accelerate launch -m launch.train --recipe valentini_wgan_literal --shards SHARDS --run runs/valentini_literal
        (figure 11: --set objective.penalties.0.weight=0, and .1)
    """
    recipe = valentini_wgan()
    objective = dataclasses.replace(recipe.objective, adversarial=BCE())  # equation 8
    return dataclasses.replace(recipe, name="valentini_wgan_literal", objective=objective)
