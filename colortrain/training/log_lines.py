"""The values of lines in metrics.jsonl, and the texts of the progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig

_PROGRESS_LOSSES = ("generator", "critic", "l1")


def start_values(
    images: int,
    dataset_id: str,
    accelerator: Accelerator,
    init_metadata: dict[str, Any] | None,
    compute: ComputeConfig,
) -> dict[str, Any]:
    """Return the values that metrics.jsonl records when a run starts or resumes.

    `images` is the number of images seen so far; `init_metadata` describes the run that
    the initial weights come from, if any; `compute` are the generator's options.
    """
    values = {
        "images": images,
        "dataset_id": dataset_id,
        "world": accelerator.num_processes,
        "device": str(accelerator.device),
        "mixed_precision": accelerator.mixed_precision,
    }
    values |= {"init_from": init_metadata} if init_metadata else {}
    return {**values, **compute.named()}


def progress_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that the progress bar shows, by label.

    values: from a line of kind "train" in metrics.jsonl.
    """
    losses = values["losses"]
    shown = {name: f"{losses[name]:.3f}" for name in _PROGRESS_LOSSES if name in losses}
    return {**shown, "data wait": f"{values['data_wait']:.1%}"}
