"""Command-line options for how training steps are computed, such as --accumulate.

They affect speed and memory, and may be changed when a run is resumed.
"""

from __future__ import annotations

import argparse

from colortrain.distributed.compute import ComputeConfig


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a parser the options for how training steps are computed."""
    group = parser.add_argument_group(
        "compute options", "these affect speed and memory; results change by rounding errors only"
    )
    group.add_argument(
        "--accumulate",
        type=int,
        metavar="N",
        help="split each process's batch into N microbatches, which needs less memory for the same "
        "global batch (default: gradient_accumulation_steps of accelerate's configuration, else 1)",
    )
    group.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="use the channels_last memory format (default: on GPUs in mixed precision, for "
        "networks that have BatchNorm and no other normalisation)",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the generator, and the critic if it has no penalty (default: on GPUs, if the "
        "run has at least 50,000 steps)",
    )
    group.add_argument(
        "--recompute",
        action="store_true",
        help="recompute the generator's activations in the backward pass, which needs less memory "
        "but is slower",
    )
    group.add_argument(
        "--fused-adam",
        action="store_true",
        help="use the fused implementation of Adam (always on for GPUs)",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="use only deterministic algorithms: slower, but the same command gives the same bits "
        "again on the same GPUs (CPUs do so without it); has not been tried on a GPU",
    )
    group.add_argument(
        "--resync",
        action="store_true",
        help="copy the networks and optimizers of the first process to all others before each "
        "validation and save, for GPUs of different models, which round differently; without it "
        "such a run ends at the first save; has not been tried on GPUs",
    )
    group.add_argument(
        "--max-skipped",
        type=int,
        default=ComputeConfig.max_skipped,
        metavar="N",
        help="stop after N consecutive updates were skipped because the loss or gradients were not "
        "finite "
        f"(default: {ComputeConfig.max_skipped})",
    )


def compute_config(args: argparse.Namespace, default_accumulate: int = 1) -> ComputeConfig:
    """Return the parsed compute options as a `ComputeConfig`.

    default_accumulate: number of microbatches without --accumulate. Raises UserError if
    a value is out of range.
    """
    return ComputeConfig(
        accumulate=default_accumulate if args.accumulate is None else args.accumulate,
        channels_last=args.channels_last,
        fused_adam=args.fused_adam,
        compile=args.compile,
        recompute=args.recompute,
        deterministic=args.deterministic,
        resync=args.resync,
        max_skipped=args.max_skipped,
    )
