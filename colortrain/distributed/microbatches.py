"""Split a local batch into microbatches for gradient accumulation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from colortrain.lab import Batch
from colortrain.models.batch_invariant import image_keys


@dataclass(frozen=True)
class Microbatch:
    """The images of a local batch that go through the networks in one forward pass.

    `keys` holds the dropout key of each image, (B,) int32. `last` is true for the last
    microbatch of a step, in which the ranks all-reduce their gradients.
    """

    batch: Batch
    keys: Tensor
    last: bool


def split_batch(batch: Batch, count: int, rank: int, seed: int, step: int) -> list[Microbatch]:
    """Split this rank's local batch into `count` equal microbatches, in order.

    `count` must divide the number of images. An image's dropout key depends on its
    position in the global batch, so it is the same for any number of processes and
    microbatches.
    """
    size = len(batch.L)
    keys = image_keys(seed, step, rank * size, size, batch.L.device)
    columns = [tensor.chunk(count) for tensor in (batch.L, batch.colour, batch.mix, keys)]
    rows = zip(*columns, strict=True)
    return [
        Microbatch(Batch(L, colour, mix), key, i == count - 1)
        for i, (L, colour, mix, key) in enumerate(rows)
    ]
