"""Score a trained run on a split of a shard set, every metric beside the same metric of grey pictures.

    python -m launch.evaluate --run runs/first --shards photos-256

With several processes (one a GPU, or one a core) it is faster and gives exactly the same numbers:

    accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.evaluate --run runs/first --shards photos-256
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from colortrain.distributed.setup import make_accelerator
from colortrain.metrics.evaluate import ScoringConfig, score_split
from colortrain.metrics.extractors import FeatureExtractors, load_extractors
from colortrain.metrics.score_tables import text_table
from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.layout import evaluation_file
from colortrain.serialize import finite
from launch.cli import CommandParser, add_cache_arguments, at_least_one, make_cache, step_or_best
from launch.processes import leave
from shards.errors import UserError, run_command, unknown
from shards.files import write_atomic
from shards.progress import ProgressLine
from shards.read.cache import Cache
from shards.read.dataset import Split, open_held_out

_EXAMPLE = """\
example: the averaged weights with and without dropout, on the test split
  python -m launch.evaluate --run runs/first --shards photos-256 --split test --dropout both
"""


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser(
        "launch.evaluate", "Score a trained run on a split, beside grey pictures.", _EXAMPLE
    )
    words.add_argument("--run", required=True, type=Path, help="folder that launch.train wrote")
    words.add_argument(
        "--shards", required=True, help="folder or URL that `python -m shards build` wrote"
    )
    add_cache_arguments(words)
    words.add_argument(
        "--split", help="which split; default val, validation or test, else the only one"
    )
    words.add_argument(
        "--json", type=Path, metavar="FILE", help="where the scores go; default RUN/evaluation.json"
    )
    words.add_argument(
        "--checkpoint",
        type=step_or_best,
        metavar="STEP",
        help="score this step's checkpoint, or the `best` (of a run with keep_best), not the newest",
    )
    words.add_argument(
        "--dropout",
        choices=("on", "off", "both"),
        help="whether dropout stays on; default what the recipe says",
    )
    for name, phrase in (
        ("inception", "FID, KID and the inception score"),
        ("vgg16", "VGG distance and LPIPS"),
    ):
        words.add_argument(
            f"--{name}",
            metavar="FILE",
            help=f"weights for {phrase}: a file, imagenet (downloads once) or random; default what torch's cache has",
        )
    words.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N samples only"
    )
    words.add_argument(
        "--batch-size",
        type=at_least_one,
        default=16,
        metavar="N",
        help="samples a chunk; default 16",
    )
    words.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="averaged weights where there are any",
    )
    return words


def open_split(
    shards: str, wanted: str | None, recipe: Recipe, cache: Cache | None = None
) -> Split:
    """The split to score; raises `UserError` if there is no such split, or if its size is not the recipe's."""
    split = Split(shards, wanted, cache=cache) if wanted else open_held_out(shards, cache)
    if wanted is not None and split.name != wanted:
        raise UserError(f"{shards}: {unknown('split', wanted, split.manifest.splits)}")
    size = split.manifest.size
    if size != recipe.size:
        raise UserError(
            f"{shards} holds {size} px samples, the run was trained at {recipe.size} px: "
            f"build shards with --size {recipe.size} and give those"
        )
    return split


def check_out(out: Path) -> None:
    """Raise `UserError`, before any work, for a file that could not be written."""
    if out.is_dir():
        raise UserError(f"--json {out} is a folder: give a file's name")
    if out.exists() and not out.is_file():  # a pipe or a device takes what it is given
        return
    folder = next(each for each in Path(os.path.realpath(out)).parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"--json {out}: {folder} is no folder that you may write to, choose another"
        )


def dropout_modes(word: str | None, recipe: Recipe) -> list[bool]:
    """With which settings of dropout to score; the recipe's own comes first."""
    own = recipe.test_dropout
    return {None: [own], "on": [True], "off": [False], "both": [own, not own]}[word]


def main(argv: Sequence[str] | None = None) -> int:
    """Score; returns the exit status."""
    arguments = parser().parse_args(argv)
    generator, recipe, step = load_generator(
        arguments.run, step=arguments.checkpoint, ema=arguments.ema
    )
    split = open_split(arguments.shards, arguments.split, recipe, make_cache(arguments))
    out = arguments.json or evaluation_file(arguments.run)
    check_out(out)
    accelerator = make_accelerator()
    check_same_step(step, accelerator)
    modes = dropout_modes(arguments.dropout, recipe)
    by = load_extractors(arguments.inception, arguments.vgg16, accelerator.device)
    scores = [score(generator, recipe, split, accelerator, mode, by, arguments) for mode in modes]
    if accelerator.is_main_process:
        facts = {
            "run": str(arguments.run),
            "recipe": recipe.name,
            "recipe_digest": recipe.digest,
            "step": step,
        }
        document = {**facts, "ema": arguments.ema and bool(recipe.ema), **scores[0]}
        print(
            "\n".join(text_table(each) for each in scores)
        )  # first, lest a full disk take them too
        write_json(document if len(scores) == 1 else {**document, "other_dropout": scores[1]}, out)
        print(f"written to {out}")
    if (
        torch.distributed.is_initialized()
    ):  # after an error not: NCCL would wait here for ranks that do not come
        torch.distributed.destroy_process_group()
    return 0


def score(
    generator: nn.Module,
    recipe: Recipe,
    split: Split,
    accelerator: Accelerator,
    dropout: bool,
    by: FeatureExtractors,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """One pass over the split, with progress on rank 0."""
    total = min(len(split), arguments.limit or len(split))
    label = f"scoring {split.name}, dropout {'on' if dropout else 'off'}"
    with ProgressLine(label, total, "images", shown=accelerator.is_main_process) as progress:
        return score_split(
            generator.to(accelerator.device),
            recipe.codec,
            split,
            accelerator.device,
            ScoringConfig(
                batch_size=arguments.batch_size,
                limit=arguments.limit,
                dropout=dropout,
                extractors=by,
            ),
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            progress=progress.advance_to,
        )


def check_same_step(step: int, accelerator: Accelerator) -> None:
    """Raise `UserError` if a run that trains on meanwhile gave the processes different checkpoints."""
    steps = [step] * accelerator.num_processes
    if accelerator.num_processes > 1:
        torch.distributed.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise UserError(
            f"the run wrote a checkpoint meanwhile (steps {sorted(set(steps))}): name one with --checkpoint"
        )


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write scores as JSON, which has no word for "not a number": null."""
    write_atomic(path, json.dumps(finite(document), indent=1, allow_nan=False).encode() + b"\n")


if __name__ == "__main__":
    leave(run_command("launch.evaluate", main))
