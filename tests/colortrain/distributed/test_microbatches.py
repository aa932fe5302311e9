"""Splitting a local batch: the images and their dropout keys stay in order."""

from __future__ import annotations

import torch

from colortrain.distributed.microbatches import split_batch
from colortrain.models.batch_invariant import image_keys
from tests.support.step_equivalence import make_batch


def test_microbatches_are_the_local_batch_in_order() -> None:
    batch = make_batch(2, 0)
    micros = split_batch(batch, 4, rank=1, seed=0, step=0)
    for field in ("L", "colour", "mix"):
        parts = [getattr(micro.batch, field) for micro in micros]
        assert torch.equal(torch.cat(parts), getattr(batch, field))
    keys = torch.cat([micro.keys for micro in micros])
    assert torch.equal(keys, image_keys(0, 0, 8, 8))
    assert [micro.last for micro in micros] == [False, False, False, True]


def test_keys_do_not_depend_on_the_world_size() -> None:
    batch = make_batch(2, 0)
    halves = [
        type(batch)(batch.L[i : i + 4], batch.colour[i : i + 4], batch.mix[i : i + 4])
        for i in (0, 4)
    ]
    (whole,) = split_batch(batch, 1, rank=0, seed=0, step=3)
    parts = [split_batch(half, 1, rank, seed=0, step=3)[0] for rank, half in enumerate(halves)]
    assert torch.equal(torch.cat([part.keys for part in parts]), whole.keys)
