"""Options, trainers and batches for the benchmarks `step`, `scaling`, `checkpoint`."""

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
from colortrain.distributed.device import default_device
from colortrain.distributed.setup import make_accelerator
from colortrain.lab import Batch
from colortrain.recipe import Recipe, load_recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.scale_down import without_downloads
from colortrain.training.trainer import Trainer
from launch.cli import CommandParser, at_least_one
from shards.errors import UserError

_NUM_BATCHES = 4  # steps are measured on these few batches, repeatedly


@dataclass(frozen=True)
class TrainingSetup:
    """A recipe, the shards on which its training is measured, and a scratch folder."""

    recipe: Recipe
    shards: tuple[str, ...]
    scratch: Path

    def make_trainer(
        self,
        name: str,
        *,
        precision: str = "no",
        compute: ComputeConfig | None = None,
        seed: int = 0,
    ) -> Trainer:
        """Return a new trainer whose run folder is `scratch`/`name`.

        precision: accelerate's mixed precision, such as "no" or "bf16".
        """
        # accelerate otherwise allows one precision per process
        AcceleratorState._reset_state(reset_partial_state=False)
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

    def load_batches(self) -> list[Batch]:
        """Return the first four training batches, on the GPU if there is one."""
        recipe, device = self.recipe, default_device().type
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
            first = list(itertools.islice(batches, _NUM_BATCHES))
        return [Batch(batch.L.clone(), batch.colour.clone(), batch.mix.clone()) for batch in first]


def cycle_batches(batches: list[Batch]) -> Iterator[Batch]:
    """Return an iterator that repeats the batches without end."""
    return itertools.cycle(batches)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished all its work; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_training_parser(name: str, description: str, example: str) -> CommandParser:
    """Return a parser with the options that all benchmarks of training share.

    name: the benchmark's name; description, example: texts for its help.
    """
    parser = CommandParser(f"launch.benchmark {name}", description, example)
    add = parser.add_argument
    add(
        "--recipe",
        default="nampouri_unet",
        help="name of a recipe, or a recipe.json (default: nampouri_unet)",
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
        help="folder that `colortrain shards build` wrote",
    )
    add(
        "--seconds",
        type=float,
        default=3.0,
        metavar="S",
        help="seconds per row and round (default: 3)",
    )
    add("--rounds", type=at_least_one, default=5, metavar="N", help="number of rounds (default: 5)")
    add(
        "--threads",
        type=at_least_one,
        metavar="N",
        help="number of torch threads per process (default: torch's own)",
    )
    add(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="folder for runs, which are deleted afterwards (default: TMPDIR)",
    )
    add("--json", type=Path, metavar="FILE", help="write the report as JSON to this file")
    add("--plot", type=Path, metavar="FILE.png", help="write a chart to this file")
    return parser


def make_setup(args: argparse.Namespace, scratch: Path) -> TrainingSetup:
    """Return the recipe and the shards that the options select; set torch's threads.

    Nothing is downloaded: pretrained weights of the recipe are replaced by random ones.
    Raises UserError if an option is invalid, if the recipe does not fit the shards, or
    if a GPU cannot be used and the CPU was not requested.
    """
    default_device()
    if args.seconds <= 0:
        raise UserError(f"--seconds {args.seconds}: must be above 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    from_file = args.recipe.endswith(".json")
    recipe = load_recipe(Path(args.recipe)) if from_file else get_recipe(args.recipe)
    recipe = override(without_downloads(recipe), args.set)
    recipe.check()
    open_data(args.shards, recipe)
    return TrainingSetup(recipe, tuple(args.shards), scratch)
