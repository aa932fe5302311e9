"""Collect what the ranks have measured on rank 0, where the metrics are computed.

Statistics of features are large: 33 MB for the products of Inception's 2,048 features,
for each of four versions of the images. So no rank but the first receives them.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import distributed

from colortrain.metrics.features import FeatureRows, Moments
from colortrain.metrics.set_metrics import FeatureStats, Key, Stats

T = TypeVar("T")
# Number of images, length of a feature vector, and names of `FeatureStats.rows`; None
# if features are not finite or too large.
_Summary = tuple[int, int, tuple[str, ...]] | None


def gather_on_rank_0(local: T, rank: int, world: int) -> list[T]:
    """Return a list with one object from each rank, in the order of ranks.

    On other ranks than 0 the list is empty. Every rank must call it.
    """
    if world == 1:
        return [local]
    gathered = [local] * world if rank == 0 else None
    distributed.gather_object(local, gathered, dst=0)
    return gathered or []


def broadcast_from_rank_0(value: T, world: int) -> T:
    """Return the object that rank 0 passes. Every rank must call it."""
    values = [value]
    if world > 1:
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def sum_on_rank_0(stats: Stats, rank: int, world: int, device: torch.device) -> Stats:
    """Return the statistics of all ranks added up; on other ranks than 0, its own.

    The ranks exchange memory of `device`. Rank 0 must have all keys. Every rank must
    call it.
    """
    if world == 1:
        return stats
    summaries: list[dict[Key, _Summary]] = [{}] * world
    distributed.all_gather_object(summaries, {key: _summary(each) for key, each in stats.items()})
    total: dict[Key, FeatureStats | None] = {}
    for key in summaries[0]:
        # a rank without images has no key
        parts = [each[key] for each in summaries if key in each]
        known = [part for part in parts if part is not None]
        total[key] = None
        if len(known) == len(parts):
            _, width, names = known[0]
            own = stats.get(key) or FeatureStats(Moments.none(width))
            total[key] = FeatureStats(
                _sum_moments(own.moments, sum(num for num, _, _ in known), device),
                {
                    name: _join(gather_on_rank_0(own.rows.get(name, FeatureRows()), rank, world))
                    for name in names
                },
            )
    return total if rank == 0 else stats


def _summary(stats: FeatureStats | None) -> _Summary:
    if stats is None:
        return None
    return stats.moments.num, len(stats.moments.sums), tuple(stats.rows)


def _sum_moments(own: Moments, num: int, device: torch.device) -> Moments:
    return Moments(num, _sum(own.sums, device), _sum(own.products, device))


def _sum(own: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the sum of an int64 array over all ranks; only rank 0 may use it."""
    # sums of integers are exact in any order
    tensor = torch.from_numpy(own.copy()).to(device)
    distributed.reduce(tensor, dst=0)
    return tensor.cpu().numpy()


def _join(parts: list[FeatureRows]) -> FeatureRows:
    return FeatureRows(tuple(chunk for part in parts for chunk in part.chunks))
