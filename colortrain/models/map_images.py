"""Compute functions of many values per pixel with little memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def map_images(function: Callable[..., Tensor], *inputs: Tensor, recompute: bool) -> Tensor:
    """Return `function(*inputs)`, where the function treats each image on its own.

    The inputs and the result are batches, (B, ...). With `recompute`, the function is
    applied to one image at a time, and again in the backward pass, so that its
    intermediate results are in memory for one image only. The result is the same.
    """
    if not (recompute and torch.is_grad_enabled()):
        return function(*inputs)
    parts = zip(*(each.split(1) for each in inputs), strict=True)
    return torch.cat(
        [
            checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    )
