"""All recipes in one table, or one of them in full with its command.

python -m launch.recipes
python -m launch.recipes nampouri_unet
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

_EXAMPLE = "example: every number of one recipe, with its source\n  python -m launch.recipes nampouri_unet\n"


def schedule_text(schedule: Schedule) -> str:
    """A schedule in few characters: "100", or "70, 10 from epoch 19"."""
    (_, first), *later = schedule.points
    return ", ".join([f"{first:g}", *(f"{value:g} from epoch {epoch:g}" for epoch, value in later)])


def networks_text(recipe: Recipe) -> str:
    """Both networks by class with their parameter counts."""
    with torch.device("meta"):
        generator, critic = recipe.build_networks()
    return "\n".join(
        "no critic" if module is None else f"{type(module).__name__} {num_parameters(module):,}"
        for module in (generator, critic)
    )


def losses_text(objective: Objective, has_critic: bool = True) -> str:
    """What the generator and the critic minimise, with weights."""
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
    """Adam of both networks, Muon's rate where it steps hidden weights, and how often each has its turn."""

    def short(adam: Adam) -> str:
        muon = f", Muon {adam.muon:g}" if adam.muon else ""
        return f"{adam.lr:g} ({adam.betas[0]:g}, {adam.betas[1]:g}){muon}"

    same = recipe.critic is None or recipe.generator_adam == recipe.critic_adam
    rates = (
        short(recipe.generator_adam)
        if same
        else f"G {short(recipe.generator_adam)}\nD {short(recipe.critic_adam)}"
    )
    turns = (
        f"\n{recipe.n_critic}:{recipe.n_generator} turns"
        if (recipe.n_critic, recipe.n_generator) != (1, 1)
        else ""
    )
    return rates + turns


def data_text(recipe: Recipe) -> str:
    """Size, batch, length."""
    length = f"{recipe.epochs:g} epochs" if recipe.images is None else f"{recipe.images:,} images"
    return f"{recipe.size} px, batch {recipe.batch_size}\n{length}"


def table() -> Table:
    """All recipes, a row each."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for title in (
        "recipe",
        "networks, parameters",
        "losses",
        "Adam (betas)",
        "data",
        "reported in the paper",
    ):
        grid.add_column(title, overflow="fold", no_wrap=title == "recipe")
    for name in RECIPES:
        recipe = get_recipe(name)
        losses = losses_text(recipe.objective, recipe.critic is not None)
        adam = optimisers_text(recipe)
        grid.add_row(
            name, networks_text(recipe), losses, adam, data_text(recipe), recipe.headline.text()
        )
    return grid


def in_full(name: str) -> str:
    """One recipe: what its docstring says, its networks, and every field."""
    recipe = get_recipe(name)
    story = inspect.cleandoc(RECIPES[name].__doc__ or "")
    return (
        f"{name}\n\n{story}\n\n{networks_text(recipe)}\n\n{json.dumps(to_plain(recipe), indent=1)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or one recipe."""
    words = CommandParser("launch.recipes", "Show all recipes, or one in full.", _EXAMPLE)
    words.add_argument("name", nargs="?", help="a recipe's name")
    name = words.parse_args(argv).name
    if name:
        print(in_full(name))
    else:
        console = Console()
        Console(width=max(console.width, 150) if not console.is_terminal else None).print(table())
    return 0


if __name__ == "__main__":
    sys.exit(run_command("launch.recipes", main))
