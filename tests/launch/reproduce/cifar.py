"""A small CIFAR-10, and options of `colortrain reproduce`, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.experiment.options import ExperimentOptions, unchanged
from tests.support.photographs import random_crops


def small_cifar(folder: Path, count: int = 12) -> Path:
    """Write two batches of `count` images in CIFAR-10's binary layout.

    The first image of each batch is grayscale. Returns `folder`.
    """
    folder.mkdir(parents=True)
    squares = list(random_crops(2 * count, side=32))
    for number, name in enumerate(("data_batch_1.bin", "test_batch.bin")):
        images = [square.copy() for square in squares[number * count : (number + 1) * count]]
        images[0][:] = images[0][..., :1]
        records = [
            bytes([place % 10]) + image.transpose(2, 0, 1).tobytes()
            for place, image in enumerate(images)
        ]
        (folder / name).write_bytes(b"".join(records))
    return folder


def make_options(out: Path, *recipes: str, **changes: Any) -> ExperimentOptions:
    """Return options for the table cifar10, two seeds of one recipe, with `changes`."""
    options: dict[str, Any] = {
        "table": "cifar10",
        "out": out,
        "networks": unchanged(*(recipes or ("flagship",))),
        "seeds": (0, 1),
        "size": 32,
        "base_channels": 4,
    }
    return ExperimentOptions(**{**options, **changes})
