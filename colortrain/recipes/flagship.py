"""flagship and flagship_calm: this project's own recipes.

They combine parts of the papers' recipes and of the literature, chosen by measurements
(docs/LOG.md).
"""

from __future__ import annotations

import math

from colortrain.losses.adversarial import BCE
from colortrain.losses.appearance import ColourfulnessGap, LogError, SoftAccuracy
from colortrain.losses.colour_bins import ColourBins
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.recipe import EMA, Adam, Objective, Recipe
from colortrain.schedule import Schedule, constant


def cosine(epochs: int) -> Schedule:
    """Return a schedule that rises from 0.01 to 1, then falls to 0 like half a cosine.

    It rises in the first epoch and reaches 0 at epoch `epochs` (Loshchilov and Hutter
    2017). Values between whole epochs are interpolated linearly.
    """
    falling = [
        (1 + math.cos(math.pi * (epoch - 1) / (epochs - 1))) / 2 for epoch in range(1, epochs + 1)
    ]
    return Schedule(
        ((0, 0.01), *((epoch, round(value, 3)) for epoch, value in enumerate(falling, 1))),
        linear=True,
    )


def last_fifth(weight: float) -> Schedule:
    """Return a schedule that is `weight` in the last fifth of the run and 0 before.

    The run counts as 10 epochs, as in recipes with `span=10`.
    """
    return Schedule(((0, 0.0), (8, weight)))


def flagship() -> Recipe:
    r"""A generator that learns colour distributions, then trains adversarially.

    This recipe reproduces no paper; docs/RECIPES.md compares it with all others. Cost:
    five times as much as `drouilhet_gan`.

        accelerate launch -m launch.train --recipe flagship \
            --shards SHARDS --run runs/flagship --images 100000

    In the first four fifths of the run, the generator learns which colours are likely
    at each pixel. In the last fifth, an adversarial loss and four losses on the
    generated image are added.
    """
    return _recipe(
        "flagship", near=4.0, gap=ColourfulnessGap(last_fifth(300.0), cell=1, share=0.985)
    )


def flagship_calm() -> Recipe:
    r"""`flagship` with a target of three fifths of the true colourfulness.

    Its images are closer to the true photographs than the images of `flagship`.

    This recipe reproduces no paper; docs/RECIPES.md compares it with all others. Cost:
    as for `flagship`.

        accelerate launch -m launch.train --recipe flagship_calm \
            --shards SHARDS --run runs/calm --images 100000
    """
    # closer both pixel by pixel and as a whole set
    return _recipe(
        "flagship_calm", near=1.0, gap=ColourfulnessGap(last_fifth(300.0), cell=4, share=0.6)
    )


def _recipe(name: str, *, near: float, gap: ColourfulnessGap) -> Recipe:
    """Return `flagship` or `flagship_calm`, which differ only in these arguments.

    `gap` is the colourfulness loss. `near` multiplies the weights of two other losses,
    `SoftAccuracy` and `LogError`.
    """
    return Recipe(
        name=name,
        size=32,
        batch_size=8,
        epochs=10,
        # all schedules stretch to the length of the run, which counts as 10 epochs
        span=10,
        generator=ResidualUNetConfig(base_channels=16, levels=3, blocks=2, temperature=0.4),
        # InstanceNorm and a gradient penalty, as in `valentini_wgan`
        critic=PatchCriticConfig(base_channels=24, strided_layers=2, norm="instance"),
        # Muon updates the hidden weights
        generator_adam=Adam(lr=2e-3, betas=(0.9, 0.99), muon=7e-3),
        critic_adam=Adam(lr=2e-3, betas=(0.5, 0.99)),
        # the network that results is a moving average over the weights of the last
        # steps
        ema=EMA(share=0.015),
        # restarts in the last fifth, at a fifth of its peak
        learning_rate=Schedule((*cosine(8).points, (8.1, 0.2), (10, 0.0)), linear=True),
        objective=Objective(
            adversarial=BCE(),
            adversarial_weight=Schedule(((0, 0.0), (8.3, 2.0))),
            critic_from=8.0,
            # `gap` rewards more colour. L1, SoftAccuracy and LogError penalise wrong
            # colours and keep each image close to its true photograph. So the network
            # adds colour where that increases these three losses least, and the images
            # of `flagship` reach only four fifths of the true colourfulness.
            reconstruction=(
                ColourBins(weight=constant(2.0)),
                L1(weight=last_fifth(100.0)),
                SoftAccuracy(weight=last_fifth(16.0 * near)),
                gap,
                LogError(weight=last_fifth(2.0 * near)),
            ),
            penalties=(
                GradientPenalty(
                    weight=constant(0.3), points="interpolated", wrt="colour", target=1.0
                ),
            ),
        ),
        log_every=50,
        evaluate_every=2500,
        checkpoint_every=2500,
    )
