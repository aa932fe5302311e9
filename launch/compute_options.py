"""The words for how a machine computes the steps; a run may go on with others."""

from __future__ import annotations

import argparse

from colortrain.distributed.compute import ComputeConfig


def add_compute_arguments(words: argparse.ArgumentParser) -> None:
    """--accumulate, --channels-last, --compile, --recompute, --fused-adam and --max-skipped."""
    group = words.add_argument_group(
        "how steps are computed", "the run stays the same run, but for rounding"
    )
    group.add_argument(
        "--accumulate",
        type=int,
        metavar="N",
        help="N microbatches a step on each process: less memory, the same global batch "
        "(default: gradient_accumulation_steps of accelerate's configuration, else 1)",
    )
    group.add_argument(
        "--channels-last",
        action="store_true",
        help="lay tensors out as convolutions like them best",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the generator, and a critic without a penalty",
    )
    group.add_argument(
        "--recompute",
        action="store_true",
        help="keep no activations inside the generator's blocks: less memory, slower",
    )
    group.add_argument(
        "--fused-adam", action="store_true", help="one kernel for all of Adam (on GPUs always)"
    )
    group.add_argument(
        "--max-skipped",
        type=int,
        default=ComputeConfig.max_skipped,
        metavar="N",
        help=f"stop when N updates in a row were not finite and were left out (default: {ComputeConfig.max_skipped})",
    )


def compute_config(arguments: argparse.Namespace, configured: int = 1) -> ComputeConfig:
    """What those words say; `configured` microbatches if they say nothing of that."""
    return ComputeConfig(
        accumulate=configured if arguments.accumulate is None else arguments.accumulate,
        channels_last=arguments.channels_last,
        fused_adam=arguments.fused_adam,
        compile=arguments.compile,
        recompute=arguments.recompute,
        max_skipped=arguments.max_skipped,
    )
