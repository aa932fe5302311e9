"""All recipes by name; `RECIPES[name]()` returns a complete recipe.

The name of a reproduction begins with the first author of its paper. The module of that
name gives the paper's title and authors.
"""

from __future__ import annotations

from collections.abc import Callable

from colortrain.headline import Headline
from colortrain.recipe import Recipe
from colortrain.recipes.arun import arun_wgan_gp, arun_wgan_gp_adversarial
from colortrain.recipes.drouilhet import drouilhet_gan, drouilhet_progan, drouilhet_wgan_gp
from colortrain.recipes.flagship import flagship, flagship_calm
from colortrain.recipes.nampouri import nampouri_resnet18, nampouri_unet
from colortrain.recipes.nazeri import nazeri_gan, nazeri_gan_places, nazeri_unet_l2
from colortrain.recipes.valentini import valentini_cgan, valentini_wgan, valentini_wgan_literal
from shards.errors import unknown

RECIPES: dict[str, Callable[[], Recipe]] = {
    "nampouri_unet": nampouri_unet,
    "nampouri_resnet18": nampouri_resnet18,
    "drouilhet_gan": drouilhet_gan,
    "drouilhet_wgan_gp": drouilhet_wgan_gp,
    "drouilhet_progan": drouilhet_progan,
    "nazeri_unet_l2": nazeri_unet_l2,
    "nazeri_gan": nazeri_gan,
    "nazeri_gan_places": nazeri_gan_places,
    "arun_wgan_gp": arun_wgan_gp,
    "arun_wgan_gp_adversarial": arun_wgan_gp_adversarial,
    "valentini_cgan": valentini_cgan,
    "valentini_wgan": valentini_wgan,
    "valentini_wgan_literal": valentini_wgan_literal,
    "flagship": flagship,
    "flagship_calm": flagship_calm,
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`.

    Raises UserError for an unknown name; the message lists the valid names.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()


def headline_of(recipe: Recipe) -> Headline:
    """Return the scores that the paper of `recipe` reports."""
    # a recipe read from a file may have been saved without these scores
    if recipe.headline != Headline() or recipe.name not in RECIPES:
        return recipe.headline
    return RECIPES[recipe.name]().headline
