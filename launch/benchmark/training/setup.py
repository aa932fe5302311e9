"""What the benchmarks of training share: their words, and trainers of one recipe that are made to be measured."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from colortrain.data.loader import LoaderConfig
from colortrain.data.tar_stream import make_loader
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.lab import Batch
from colortrain.recipe import Recipe, load_recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.scale_down import without_downloads
from colortrain.training.trainer import Trainer
from launch.cli import CommandParser, at_least_one
from shards.errors import UserError

_BATCHES = 4  # that steps are measured on, again and again


@dataclass(frozen=True)
class Course:
    """A recipe on shards. Its runs stand in folders of `scratch`, start from random weights and score nothing."""

    recipe: Recipe
    shards: tuple[str, ...]
    scratch: Path

    def trainer(
        self,
        name: str,
        *,
        precision: str = "no",
        compute: ComputeConfig | None = None,
        seed: int = 0,
    ) -> Trainer:
        """A trainer, alone in its process or with others that compute otherwise, ready for `take_step`."""
        AcceleratorState._reset_state(
            reset_partial_state=False
        )  # it allows one precision a process
        recipe = dataclasses.replace(self.recipe, seed=seed)
        data = dataclasses.replace(open_data(self.shards, recipe), validation=None)
        return Trainer(
            recipe,
            data,
            self.scratch / name,
            make_accelerator(mixed_precision=precision),
            None,
            compute,
        )

    def batches(self) -> list[Batch]:
        """The first few batches, on this machine's device: data costs nothing then."""
        recipe, device = self.recipe, "cuda" if torch.cuda.is_available() else "cpu"
        loader = make_loader(
            open_data(self.shards, recipe).train,
            recipe.codec,
            LoaderConfig(
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                flip=recipe.flip,
                crop=recipe.crop,
                device=device,
                workers=0,
            ),
        )
        with closing(loader.batches()) as batches:
            found = list(itertools.islice(batches, _BATCHES))
        return [Batch(batch.L.clone(), batch.colour.clone(), batch.mix.clone()) for batch in found]


def endless(batches: list[Batch]) -> Iterator[Batch]:
    """The same few over and over."""
    return itertools.cycle(batches)


def wait_for(device: torch.device) -> None:
    """Until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def words(name: str, text: str, example: str) -> CommandParser:
    """The words that benchmarks of training have in common."""
    found = CommandParser(f"launch.benchmark {name}", text, example)
    add = found.add_argument
    add(
        "--recipe",
        default="nampouri_unet",
        help="a recipe's name, or a recipe.json (default: nampouri_unet)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe",
    )
    add(
        "--shards",
        required=True,
        action="append",
        metavar="DIR",
        help="what `python -m shards build` wrote",
    )
    add(
        "--seconds",
        type=float,
        default=3.0,
        metavar="S",
        help="how long each row takes each round (default: 3)",
    )
    add(
        "--rounds", type=at_least_one, default=5, metavar="N", help="in how many turns (default: 5)"
    )
    add(
        "--threads",
        type=at_least_one,
        metavar="N",
        help="torch's threads in a process (default: its own choice)",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where runs are written and removed (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="also write everything there")
    add("--plot", type=Path, metavar="FILE.png", help="also draw it")
    return found


def course(asked: argparse.Namespace, scratch: Path) -> Course:
    """What the words ask for, checked: the recipe at the shards' size, without downloads."""
    if asked.seconds <= 0:
        raise UserError(f"--seconds {asked.seconds}: give more than 0")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    named = (
        load_recipe(Path(asked.recipe))
        if asked.recipe.endswith(".json")
        else get_recipe(asked.recipe)
    )
    recipe = override(without_downloads(named), asked.set)
    recipe.check()
    open_data(asked.shards, recipe)
    return Course(recipe, tuple(asked.shards), scratch)


def settings(asked: argparse.Namespace) -> dict[str, object]:
    """The words as they were given, for the report."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(asked).items()
    }
