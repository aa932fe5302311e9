"""A rank's share of a global batch as the microbatches that go through the networks one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from colortrain.lab import Batch
from colortrain.models.batch_invariant import image_keys


@dataclass(frozen=True)
class Part:
    """What goes through the networks at once: a slice of this rank's share, what its pictures draw from, its place."""

    batch: Batch
    keys: Tensor
    last: bool


def parts_of(batch: Batch, count: int, rank: int, seed: int, step: int) -> list[Part]:
    """This rank's share of a global batch in `count` equal parts, each picture with its draws."""
    share = len(batch.L)
    keys = image_keys(seed, step, rank * share, share, batch.L.device)
    columns = [tensor.chunk(count) for tensor in (batch.L, batch.colour, batch.mix, keys)]
    rows = zip(*columns, strict=True)
    return [
        Part(Batch(L, colour, mix), key, i == count - 1)
        for i, (L, colour, mix, key) in enumerate(rows)
    ]
