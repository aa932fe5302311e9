"""flagship: no paper's; what was found by measured steps (docs/LOG.md) from the papers' parts and the field's."""

from __future__ import annotations

import dataclasses
import math

from colortrain.losses.adversarial import BCE
from colortrain.losses.appearance import ColourfulnessGap, LogError
from colortrain.losses.colour_bins import ColourBins
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.recipe import EMA, Adam, Objective, Recipe
from colortrain.recipes.nazeri import NEVER
from colortrain.schedule import Schedule, constant


def cosine(epochs: int) -> Schedule:
    """From 1 % to 1 in the first epoch, then half a cosine down to 0, in straight lines of an epoch (SGDR, 2017)."""
    falling = [(1 + math.cos(math.pi * (epoch - 1) / (epochs - 1))) / 2 for epoch in range(1, epochs + 1)]
    return Schedule(((0, 0.01), *((epoch, round(value, 3)) for epoch, value in enumerate(falling, 1))), linear=True)


def flagship() -> Recipe:
    """Likely colours for four fifths of the run, then a game: colours that a critic takes for true, as many as true.

    Headline: none of a paper's; docs/RECIPES.md has it beside all others. Cost: two to three times `drouilhet_gan`'s.

        accelerate launch -m launch.train --recipe flagship --shards SHARDS --run runs/flagship --images 100000

    In the last fifth the rate begins once more, at a fifth. The critic and its penalty are valentini's, the gap to the
    truth's colourfulness pushes towards colour, L1 and the logarithm of the squared error say where it costs least.
    What is shown is an average over the last steps.
    """
    calm = flagship_calm()
    return dataclasses.replace(
        calm,
        name="flagship",
        batch_size=16,
        generator=ResidualUNetConfig(
            base_channels=16, levels=3, deep_blocks=2, attention=True, head=1, temperature=0.4, corrects=True
        ),
        critic=PatchCriticConfig(base_channels=24, strided_layers=2, norm="instance"),
        generator_adam=Adam(lr=2e-3, betas=(0.9, 0.99)),
        critic_adam=Adam(lr=2e-3, betas=(0.5, 0.99)),
        ema=EMA(share=0.015),
        learning_rate=Schedule((*cosine(8).points, (8.1, 0.2), (9, 0.1), (10, 0.0)), linear=True),
        objective=dataclasses.replace(
            calm.objective,
            adversarial_weight=Schedule(((0, 0.0), (8.3, 2.0))),
            critic_from=8.0,
            reconstruction=(
                ColourBins(weight=constant(2.0)),
                L1(weight=late(100.0)),
                ColourfulnessGap(weight=late(300.0), share=0.93),
                LogError(weight=late(0.5)),
            ),
            penalties=(GradientPenalty(weight=constant(0.3), points="interpolated", wrt="colour", target=1.0),),
        ),
    )


def late(weight: float) -> Schedule:
    """Nothing for four fifths of the run, then `weight`."""
    return Schedule(((0, 0.0), (8, weight)))


def flagship_calm() -> Recipe:
    """A residual U-Net that learns which of a grid's colours are likely, and shows their mean at a low temperature.

    Headline: none of a paper's; docs/RECIPES.md has it beside all others. Cost: two to three times `drouilhet_gan`'s.

        accelerate launch -m launch.train --recipe flagship_calm --shards SHARDS --run runs/calm --images 100000

    The critic never learns (as `nazeri_unet_l2`'s). All schedules span the run, whatever its length.
    """
    adam = Adam(lr=2e-3, betas=(0.9, 0.99), clip=1.0)
    return Recipe(
        name="flagship_calm",
        size=32,
        batch_size=8,
        epochs=10,
        stretched=True,
        generator=ResidualUNetConfig(base_channels=16, levels=3, temperature=0.4),
        critic=PatchCriticConfig(base_channels=16),
        generator_adam=adam,
        critic_adam=adam,
        learning_rate=cosine(10),
        objective=Objective(
            adversarial=BCE(),
            adversarial_weight=constant(0.0),
            critic_from=NEVER,
            reconstruction=(ColourBins(weight=constant(0.05)),),
        ),
        log_every=50,
        evaluate_every=2500,
        checkpoint_every=2500,
    )
