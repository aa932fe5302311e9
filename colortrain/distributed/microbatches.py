"""Split a local batch into microbatches for gradient accumulation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from colortrain.lab import Batch
from colortrain.models.batch_invariant import image_keys


@dataclass(frozen=True)
class Microbatch:
    """The images of a local batch that go through the networks in one forward pass."""

    batch: Batch
    keys: Tensor  # (B,) int32, the dropout key of each image, on the CPU
    last: bool  # true in a step's last one, in which gradients are all-reduced


def split_batch(batch: Batch, count: int, rank: int, seed: int, step: int) -> list[Microbatch]:
    """Split this rank's local batch into `count` equal microbatches, in order.

    `count` must divide the number of images. `seed` and `step` determine the images'
    dropout keys.
    """
    size = len(batch.L)
    # keyed by the position in the global batch, so that a key is the same for any
    # number of processes and microbatches
    keys = image_keys(seed, step, rank * size, size)
    columns = [tensor.chunk(count) for tensor in (batch.L, batch.colour, batch.mix, keys)]
    rows = zip(*columns, strict=True)
    return [
        Microbatch(Batch(L, colour, mix), key, i == count - 1)
        for i, (L, colour, mix, key) in enumerate(rows)
    ]
