"""The command-line arguments that `compare` and `reproduce` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colortrain.recipes import RECIPES
from colortrain.scale_down import PretrainedWeights
from launch.cli import at_least_one, at_least_zero
from shards.errors import UserError, unknown


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose networks and make them like their papers'."""
    parser.add_argument(
        "--recipes", nargs="+", metavar="NAME", help="the recipes to train (default: all)"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=at_least_zero,
        default=[0],
        metavar="N",
        help="train each network with each of these seeds (default: 0)",
    )
    parser.add_argument(
        "--vgg16",
        metavar="imagenet|random|FILE",
        help="weights of the VGG-16 in perceptual losses and metrics (default: imagenet for "
        "networks of the published width, else random ones in losses and no such metrics)",
    )
    parser.add_argument(
        "--resnet18",
        metavar="imagenet|none|FILE",
        help="weights of the ResNet-18 in generators; requires 64 base channels (default: "
        "imagenet for networks of the published width, else none)",
    )
    parser.add_argument(
        "--stretch-schedules",
        action="store_true",
        help="let the schedules of each recipe span the run instead of the paper's epochs",
    )


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which images are scored and drawn."""
    parser.add_argument(
        "--inception",
        metavar="imagenet|FILE",
        help="weights of Inception for FID and the inception score (default: no such metrics)",
    )
    parser.add_argument(
        "--squeezenet",
        metavar="imagenet|FILE",
        help="weights of SqueezeNet for LPIPS and a Fréchet distance (default: no such metrics)",
    )
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="score the first N held-out images only"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="shard set whose photographs the image shows (default: the scored images)",
    )


def check_recipes(names: Sequence[str]) -> None:
    """Raise UserError if one of the names is not that of a recipe."""
    for name in names:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES)


def shared_options(
    args: argparse.Namespace, base_channels: int | None, metrics: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the fields of `ExperimentOptions` that the shared arguments set.

    base_channels: width of the networks, or None for the published width; metrics: the
    metrics in the first columns. Raises UserError if a seed is too large, a file does
    not exist, or the networks have another width than the weights of --resnet18.
    """
    _check_files(args)
    if max(args.seeds) >= 2**63:
        raise UserError(f"--seeds {max(args.seeds)}: give whole numbers below 2^63")
    weights = pretrained_weights(args, base_channels)
    vgg16 = args.vgg16 or (weights.vgg16 if "vgg_distance" in metrics else None)
    # The features of random weights mean nothing, so there are no such metrics.
    named = {
        "--inception": args.inception,
        "--vgg16": None if vgg16 == "random" else vgg16,
        "--squeezenet": args.squeezenet,
    }
    return {
        "out": args.out,
        "seeds": tuple(args.seeds),
        "base_channels": base_channels,
        "limit": args.limit,
        "weights": weights,
        "scoring": tuple(text for pair in named.items() if pair[1] for text in pair),
        "stretch_schedules": args.stretch_schedules,
        "metrics": tuple(metrics),
    }


def pretrained_weights(args: argparse.Namespace, base_channels: int | None) -> PretrainedWeights:
    """Return the weights that the options name, or the published ones by default.

    base_channels: width of the networks, or None for the published width. Raises
    UserError if the networks are narrower than the weights of --resnet18.
    """
    published = base_channels is None
    resnet18 = args.resnet18 or ("imagenet" if published else "none")
    if resnet18 != "none" and base_channels not in (None, 64):
        raise UserError("--resnet18: the weights of ResNet-18 require --base-channels 64")
    vgg16 = args.vgg16 or ("imagenet" if published else "random")
    return PretrainedWeights(vgg16, None if resnet18 == "none" else resnet18)


def _check_files(args: argparse.Namespace) -> None:
    for option in ("--vgg16", "--resnet18", "--inception", "--squeezenet"):
        name = getattr(args, option.removeprefix("--"))
        if name not in (None, "imagenet", "random", "none") and not Path(name).is_file():
            raise UserError(f"{option} {name}: no such file; give one, or imagenet")
