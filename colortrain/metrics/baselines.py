"""The one colour that a network without eyes would give every pixel: what a score must be read against, beside grey."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.color import unpack
from shards.read.dataset import Split
from shards.read.mixture import evenly_spaced

_MOST = 2000  # samples that are counted, evenly spaced
_LEARNT_FROM = "train"


@dataclass(frozen=True)
class MedianColour:
    """Channel-wise median of a and b in whole CIELAB units, over `samples` samples of `split`."""

    ab: tuple[float, float]
    split: str
    samples: int

    def protocol(self, scored: Split) -> dict[str, object]:
        """What a report says of it; an oracle has looked at the very pictures that it is scored on."""
        facts = {"ab": list(self.ab), "split": self.split, "samples": self.samples}
        return {**facts, "oracle": self.split == scored.name}


@lru_cache(maxsize=8)
def median_colour(scored: Split) -> MedianColour:
    """The median of the set's train split; where there is none, an oracle: of the split being scored.

    The median is the constant of the least L1. Counted once a process and split opened.
    """
    learn = bool(scored.manifest.splits.get(_LEARNT_FROM)) and scored.name != _LEARNT_FROM
    return _count(scored.sibling(_LEARNT_FROM) if learn else scored)


def _count(split: Split) -> MedianColour:
    counts, samples = np.zeros((2, 256), np.int64), 0
    for samples, stored in enumerate(evenly_spaced(split, _MOST), 1):  # noqa: B007  # counted
        units = np.clip(np.rint(unpack(stored)[1:]) + 128, 0, 255).astype(np.intp)
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in units]
    below = counts.cumsum(1) * 2 >= counts.sum(1, keepdims=True)
    a, b = (float(place - 128) for place in below.argmax(1).tolist())
    return MedianColour((a, b), split.name, samples)
