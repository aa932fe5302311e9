"""Score a trained run on a split of a shard set, compared with baselines.

    colortrain evaluate --run runs/first --shards photos-256

Several processes, one per GPU or core, are faster and return exactly the same scores:

    accelerate launch --config_file launch/accelerate/cpu.yaml -m launch.evaluate \\
        --run runs/first --shards photos-256
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

from colortrain.distributed.from_rank_0 import copy_from_rank_0, on_rank_0
from colortrain.distributed.setup import announce_start, make_accelerator
from colortrain.metrics.evaluate import ScoringConfig, conditions, score_split
from colortrain.metrics.extractors import FeatureExtractors, load_extractors
from colortrain.metrics.features import INCEPTION_SPLITS
from colortrain.metrics.registry import METRICS, Scores
from colortrain.metrics.score_tables import text_table
from colortrain.models.memory import build_network
from colortrain.out_of_memory import explain_out_of_memory
from colortrain.recipe import Recipe
from colortrain.runs.added_scores import add_scores, read_comparable
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.layout import evaluation_file
from colortrain.serialize import finite
from launch.cli import CommandParser, add_cache_arguments, at_least_one, make_cache
from launch.network_options import add_weight_arguments
from launch.processes import exit_process
from shards.errors import UserError, run_command, unknown
from shards.files import write_atomic
from shards.progress import ProgressLine
from shards.read.cache import Cache
from shards.read.dataset import Split, open_held_out

_EXAMPLE = """\
example: the test split, with and without dropout
  colortrain evaluate --run runs/first --shards photos-256 --split test --dropout both
"""
_EXTRACTORS = {
    "inception": "FID, KID and the inception score",
    "vgg16": "VGG distance and LPIPS",
    "squeezenet": "LPIPS and a Fréchet distance of SqueezeNet 1.1",
}
# the classifier is trained by `colortrain reproduce`, which computes that distance
_METRICS = [name for name, metric in METRICS.items() if metric.needs != "classifier"]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        "evaluate",
        "Score a trained run on a split, compared with grayscale and other baselines.",
        _EXAMPLE,
    )
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder")
    parser.add_argument(
        "--shards",
        required=True,
        metavar="DIR",
        help="folder or URL written by `colortrain shards build`",
    )
    add_cache_arguments(parser)
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="the split to score (default: val, validation or test, else the only one)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="file for the scores (default: RUN/evaluation.json)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="compute only these metrics, and add them to the scores in the file if it exists: "
        f"{', '.join(_METRICS)} (default: all whose weights there are, in a new file)",
    )
    add_weight_arguments(parser)
    parser.add_argument(
        "--dropout",
        choices=("on", "off", "both"),
        help="dropout at inference (default: the recipe's setting)",
    )
    for name, metrics in _EXTRACTORS.items():
        parser.add_argument(
            f"--{name}",
            metavar="FILE",
            help=f"weights for {metrics}: a file, `imagenet` (downloaded once) or `random` "
            "(default: the published file if it is in torch's cache, else no such metrics)",
        )
    parser.add_argument(
        "--is-splits",
        type=at_least_one,
        metavar="N",
        help="parts of the split for the inception score, whose mean and standard deviation over "
        f"them are printed (default: {INCEPTION_SPLITS}, or one image each if there are fewer)",
    )
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N samples only"
    )
    parser.add_argument(
        "--batch-size",
        type=at_least_one,
        default=16,
        metavar="N",
        help="samples per batch (default: 16)",
    )
    return parser


def open_split(
    shards: str,
    name: str | None,
    recipe: Recipe,
    cache: Cache | None = None,
    option: str = "",
) -> Split:
    """Return the split `name` of a shard set, or its held-out split if `name` is None.

    `option` is the option of the command that gives `name`, for messages.
    Raises UserError if there is no such split, or if its samples do not have the image
    size of the recipe.
    """
    split = open_held_out(shards, cache, name, option)
    size = split.manifest.size
    if size != recipe.size:
        raise UserError(
            f"{shards} has samples of {size} px, but the run was trained at {recipe.size} px: "
            f"build shards with --size {recipe.size} and give those"
        )
    return split


def inception_splits(option: int | None, samples: int) -> int:
    """Return the number of parts of the split for the inception score.

    option: the value of --is-splits, or None for the default; samples: how many images
    are scored. Raises UserError if that is less than `option`.
    """
    if option and option > samples:
        raise UserError(
            f"--is-splits {option} requires at least {option} images, {samples} are scored: "
            "give fewer splits"
        )
    return option or INCEPTION_SPLITS


def check_output_file(path: Path) -> None:
    """Raise UserError if the file for the scores (--json) cannot be written."""
    if path.is_dir():
        raise UserError(f"--json {path} is a folder: give a file name")
    if path.exists() and not path.is_file():  # a pipe or a device: can be written to
        return
    folder = next(each for each in Path(os.path.realpath(path)).parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--json {path}: {folder} is not a writable folder: choose another")


def dropout_modes(option: str | None, recipe: Recipe) -> list[bool]:
    """Return whether dropout is on, for each time that the run is scored.

    option: the value of --dropout, or None for the recipe's own setting.
    """
    own = recipe.test_dropout
    return {None: [own], "on": [True], "off": [False], "both": [own, not own]}[option]


def chosen_metrics(names: Sequence[str] | None) -> frozenset[str] | None:
    """Return the metrics of --metrics, or None for all.

    Raises UserError for an unknown name.
    """
    for name in names or ():
        if name not in _METRICS:
            raise unknown("metric", name, _METRICS)
    return frozenset(names) if names else None


def check_image_size(split: Split, extractors: FeatureExtractors) -> None:
    """Raise UserError if images of a split are too small for the extractors."""
    size = split.manifest.size
    if size < extractors.min_size:
        raise UserError(
            f"LPIPS requires images of at least {extractors.min_size} px, {split.root} has samples "
            f"of {size} px: leave out the option that gives its weights, or give --metrics"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Score the run, print and save the scores, and return the exit status."""
    args = make_parser().parse_args(argv)
    only = chosen_metrics(args.metrics)
    accelerator = make_accelerator(announced=False)
    generator, recipe, step = load_on_rank_0(args, accelerator)
    split = open_split(args.shards, args.split, recipe, make_cache(args), "--split")
    out = args.json or evaluation_file(args.run)
    check_output_file(out)
    samples = min(len(split), args.limit or len(split))
    splits = inception_splits(args.is_splits, samples)
    weights = {
        "recipe_digest": recipe.digest,
        "step": step,
        "ema": args.ema and bool(recipe.ema),
    }
    with explain_out_of_memory("scoring", f"give a --batch-size below {args.batch_size}"):
        extractors = load_extractors(
            **{name: getattr(args, name) for name in _EXTRACTORS},
            inception_splits=splits,
            only=only,
            device=accelerator.device,
        )
        check_image_size(split, extractors)
        configs = [
            ScoringConfig(
                batch_size=args.batch_size,
                limit=args.limit,
                dropout=dropout,
                only=only,
                extractors=extractors,
            )
            for dropout in dropout_modes(args.dropout, recipe)
        ]
        required = {"samples": samples, "protocol": conditions(recipe.codec, split, configs[0])}
        earlier = read_comparable(out, {**weights, **required}) if only else {}
        announce_start(accelerator)  # after all checks, so that a mistake is one line
        scores = [score(generator, recipe, split, accelerator, config) for config in configs]
    if accelerator.is_main_process:
        facts = {"run": str(args.run), "recipe": recipe.name, **weights}
        document = add_scores(earlier, {**facts, **scores[0]})
        if len(scores) > 1:
            document["other_dropout"] = add_scores(earlier.get("other_dropout", {}), scores[1])
        try:
            write_json(document, out)
        finally:  # so that a full disk does not lose the scores
            print("\n".join(text_table(each) for each in scores))
        print(f"written to {out}")
    # Not after an exception: NCCL would wait here for ranks that do not arrive.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def score(
    generator: nn.Module,
    recipe: Recipe,
    split: Split,
    accelerator: Accelerator,
    config: ScoringConfig,
) -> Scores:
    """Return a generator's scores on a split, computed by all processes together."""
    total = min(len(split), config.limit or len(split))
    label = f"scoring {split.name}, dropout {'on' if config.dropout else 'off'}"
    with ProgressLine(label, total, "images", shown=accelerator.is_main_process) as progress:
        return score_split(
            generator,
            recipe.codec,
            split,
            accelerator.device,
            config,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            progress=progress.advance_to,
        )


def load_on_rank_0(
    args: argparse.Namespace, accelerator: Accelerator
) -> tuple[nn.Module, Recipe, int]:
    """Return the run's generator on this rank's device, its recipe and its step.

    Only rank 0 reads and verifies the checkpoint. All ranks must call it. Raises
    UserError, on all ranks, if the checkpoint does not exist or cannot be read.
    """
    # Otherwise ranks might also load different checkpoints, because a run that is
    # training saves new ones meanwhile.
    loaded: list[nn.Module] = []

    def load() -> tuple[Recipe, int]:
        generator, recipe, step = load_generator(args.run, step=args.checkpoint, ema=args.ema)
        loaded.append(generator)
        return recipe, step

    recipe, step = on_rank_0(load, accelerator)
    generator = loaded[0] if loaded else build_network(recipe.generator).eval()
    generator.to(accelerator.device)
    if accelerator.num_processes > 1:
        copy_from_rank_0(generator.state_dict().values())
    return generator, recipe, step


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write scores to a JSON file; NaN and infinite values become null."""
    write_atomic(path, json.dumps(finite(document), indent=1, allow_nan=False).encode() + b"\n")


if __name__ == "__main__":
    exit_process(run_command("evaluate", main))
