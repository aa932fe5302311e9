"""Print all recipes as a table, or one recipe in full with its training command.

colortrain recipes
colortrain recipes nampouri_unet
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from colortrain.models.initialise import num_parameters
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.schedule import Schedule
from colortrain.serialize import to_plain
from launch.cli import CommandParser
from shards.errors import run_command

_EXAMPLE = """\
example: all fields of one recipe, and its description
  colortrain recipes nampouri_unet
"""
_COLUMNS = (
    "recipe",
    "networks, parameters",
    "losses",
    "Adam (betas)",
    "data",
    "scores in the paper",
)


def schedule_text(schedule: Schedule) -> str:
    """Return a weight's schedule as short text, such as "70, 10 from epoch 19"."""
    (_, first), *later = schedule.points
    return ", ".join([f"{first:g}", *(f"{value:g} from epoch {epoch:g}" for epoch, value in later)])


def networks_text(recipe: Recipe) -> str:
    """Return the class and the parameter count of each network, one per line."""
    with torch.device("meta"):
        generator, critic = recipe.build_networks()
    return "\n".join(
        "no critic" if module is None else f"{type(module).__name__} {num_parameters(module):,}"
        for module in (generator, critic)
    )


def losses_text(objective: Objective, has_critic: bool = True) -> str:
    """Return the generator's weighted losses and the critic's penalties as text."""
    adversarial = (
        f"{schedule_text(objective.adversarial_weight)} x {type(objective.adversarial).__name__}"
    )
    terms = [f"{schedule_text(term.weight)} x {term.name}" for term in objective.reconstruction]
    penalties = [
        f"{schedule_text(p.weight)} x {p.name} ({p.points}, {p.wrt})" for p in objective.penalties
    ]
    return "\n".join(
        [
            "G: " + " + ".join([adversarial, *terms] if has_critic else terms),
            *(["D: + " + " + ".join(penalties)] if penalties else []),
        ]
    )


def optimisers_text(recipe: Recipe) -> str:
    """Return the learning rates, betas and step ratio of both optimizers as text."""

    def short(adam: Adam) -> str:
        muon = f", Muon {adam.muon:g}" if adam.muon else ""
        return f"{adam.lr:g} ({adam.betas[0]:g}, {adam.betas[1]:g}){muon}"

    same = recipe.critic is None or recipe.generator_adam == recipe.critic_adam
    rates = (
        short(recipe.generator_adam)
        if same
        else f"G {short(recipe.generator_adam)}\nD {short(recipe.critic_adam)}"
    )
    ratio = (
        f"\n{recipe.n_critic}:{recipe.n_generator} steps"
        if (recipe.n_critic, recipe.n_generator) != (1, 1)
        else ""
    )
    return rates + ratio


def data_text(recipe: Recipe) -> str:
    """Return image and batch size, length and, if given, --fit: two or three lines."""
    length = f"{recipe.epochs:g} epochs" if recipe.images is None else f"{recipe.images:,} images"
    fit = f"\n--fit {recipe.fit}" if recipe.fit else ""
    return f"{recipe.size} px, batch {recipe.batch_size}\n{length}{fit}"


def table() -> Table:
    """Return a table of all recipes for the terminal, with one row per recipe."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for title in _COLUMNS:
        grid.add_column(title, overflow="fold", no_wrap=title == "recipe")
    for name in RECIPES:
        recipe = get_recipe(name)
        losses = losses_text(recipe.objective, recipe.critic is not None)
        adam = optimisers_text(recipe)
        grid.add_row(
            name, networks_text(recipe), losses, adam, data_text(recipe), recipe.headline.text()
        )
    return grid


def full_text(name: str) -> str:
    """Return the recipe `name` in full as text, with its description and all fields."""
    recipe = get_recipe(name)
    description = inspect.cleandoc(RECIPES[name].__doc__ or "")
    fields = json.dumps(to_plain(recipe), indent=1)
    return "\n\n".join([name, description, networks_text(recipe), fields])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of all recipes, or one recipe in full; return the exit status."""
    parser = CommandParser("recipes", "List all recipes, or print one in full.", _EXAMPLE)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of a recipe")
    name = parser.parse_args(argv).name
    if name:
        print(full_text(name))
    else:
        console = Console()
        Console(width=max(console.width, 150) if not console.is_terminal else None).print(table())
    return 0


if __name__ == "__main__":
    sys.exit(run_command("recipes", main))
